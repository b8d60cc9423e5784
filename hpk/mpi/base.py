"""What the supervisor asks of an MPI launcher: argv that starts the ranks, and what crosses over.

Nothing here spawns or touches the disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional, Protocol

from hpk.model.frozen import dataclass
from hpk.model.plan import MpiPlan

_CROSSES = re.compile(
    r"(PMIX|PMI|SLURM|SLURMD|PALS|PRTE|OMPI|HYDRA|I_MPI|MPICH|UCX|FI|NCCL)_.*"
    r"|PMI[0-9]?|CUDA_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|(ROCR|HIP)_VISIBLE_DEVICES"
    r"|MASTER_ADDR|MASTER_PORT|RANK|LOCAL_RANK|WORLD_SIZE"
)


@dataclass(frozen=True)
class LaunchRequest:
    """A run to start.

    :param name: of the container, for the site's accounting.
    :param rank_argv: what each rank executes on its node: the supervisor's rank program.
    :param job_env: the environment of the batch script.
    """

    plan: MpiPlan
    rank_argv: tuple[str, ...]
    job_env: tuple[tuple[str, str], ...]
    name: str


class MpiLauncher(Protocol):
    """An MPI launcher."""

    name: str

    def argv(self, request: LaunchRequest) -> tuple[str, ...]:
        """The one program that starts all ranks and ends with the run's exit code."""

    def environment(self, request: LaunchRequest) -> tuple[tuple[str, str], ...]:
        """Its environment."""

    def first_failure(self, line: bytes) -> Optional[int]:
        """Whether a line of the launcher's standard error tells of a failed rank: that rank's exit
        code, 0 where the launcher's own says it better; None for any other line."""


def crossing_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a rank that follow it into the container."""
    return {name: value for name, value in env.items() if _CROSSES.fullmatch(name)}
