"""MPI: a rank in each task of the launcher's step, one keeper of a container for each node."""
