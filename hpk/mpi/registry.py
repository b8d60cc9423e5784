"""The MPI launchers by name."""

from __future__ import annotations

from hpk.mpi.base import Launcher
from hpk.mpi.srun import SrunPmix

LAUNCHERS: dict[str, Launcher] = {"pmix": SrunPmix()}
