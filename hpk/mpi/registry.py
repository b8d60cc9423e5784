"""The MPI launchers by name."""

from __future__ import annotations

from hpk.mpi.base import MpiLauncher
from hpk.mpi.srun import SrunPmix

LAUNCHERS: dict[str, MpiLauncher] = {"pmix": SrunPmix()}
