"""From a plan to one Slurm job."""
