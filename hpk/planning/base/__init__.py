"""Reading a Pod's JSON: fields, quantities, containers and names. Knows nothing of Slurm."""
