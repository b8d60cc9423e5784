"""Placement: where Slurm has put an attempt to run a pod. No I/O."""

from __future__ import annotations

from hpk.model.frozen import dataclass
from hpk.model.ids import SlurmJobId


@dataclass(frozen=True)
class Placement:
    """A Slurm job of the attempt's own."""

    job_id: SlurmJobId

    def __str__(self) -> str:
        return f"Slurm job {self.job_id}"
