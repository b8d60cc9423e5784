"""A private real Slurm cluster on one machine, for the demo and the tests."""
