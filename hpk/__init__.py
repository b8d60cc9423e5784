"""HPK: Kubernetes on Slurm, as an ordinary user."""

__version__ = "0.1.0"
