"""What a Pod asks of Slurm: options, resources, MPI, and what a site says of these."""
