"""The Nodes that stand for Slurm partitions, and their leases."""
