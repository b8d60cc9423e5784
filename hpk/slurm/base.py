"""The Protocol every Slurm back end fulfils. Knows nothing of Kubernetes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from hpk.model.errors import HpkError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, Partition


class SlurmBackend(Protocol):
    """What HPK asks of Slurm.

    Every method raises TransientError where Slurm does not answer, PermanentError where it refuses
    for good; messages carry Slurm's own words.
    """

    @property
    def look_cost_s(self) -> float:
        """What the last answer of `jobs` took of Slurm; 0 before there was one."""

    async def submit(self, script: Path, *, directory: Path) -> SlurmJobId:
        """Submit a script.

        :param directory: one that exists, for what must outlive the caller: `recover` finds the job
            again by it. One submission at a time in each.
        :raises PermanentError: Slurm refuses this request whenever it comes (invalid option,
            a request larger than any node, unknown account).
        :raises TransientError: Slurm refuses now (submit limits: reason ``SubmitLimit``) or does
            not answer (``Unknown``: it may have taken the job).
        """

    async def recover(
        self, name: str, *, since_s: float, directory: Path, settle: bool = True
    ) -> SlurmJobId | None:
        """The job of a submission whose caller died.

        :param name: of the job, as the script has it.
        :param since_s: when it was begun, Unix seconds.
        :param settle: wait first until it has come to its end.
        :returns: None: neither sbatch nor squeue nor accounting tells of a job.
        """

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        """The state of these jobs, from one squeue and, for those it does not show, one sacct.

        A job neither of them knows is absent from the answer. It comes when Slurm may be asked
        again: no oftener than hpk.slurm.governor has it.
        """

    async def cancel(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, HpkError]:
        """Cancel jobs; one that has already ended is no error.

        :returns: what went wrong with which.
        """

    async def partitions(self) -> tuple[Partition, ...]:
        """The partitions this user may submit to."""

    async def version(self) -> str:
        """``22.05.8``."""

    async def kill_wait_s(self) -> int:
        """Seconds between Slurm's SIGTERM and its SIGKILL (``KillWait`` of slurm.conf(5))."""
