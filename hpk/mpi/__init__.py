"""One file per MPI launcher: a container's command as the ranks of a run. Spawns nothing."""
