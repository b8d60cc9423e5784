"""Slurm, behind one Protocol. Knows nothing of Kubernetes."""
