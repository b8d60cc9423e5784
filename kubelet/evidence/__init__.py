"""What is known of a pod's attempt, from Slurm and from its supervisor, and what it amounts to."""
