"""The Protocol every Slurm back end fulfils. Knows nothing of Kubernetes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One sbatch call.

    :param script: the batch script.
    :param stdout_path: where sbatch's own output goes, so that the id survives a dead caller;
        stderr_path likewise.
    :param lock_fd: a locked descriptor sbatch inherits: the lock is held until sbatch has ended,
        whatever becomes of the caller.
    """

    script: Path
    stdout_path: Path
    stderr_path: Path
    lock_fd: int


class SlurmBackend(Protocol):
    """What HPK asks of Slurm.

    Every method raises TransientError where Slurm does not answer, PermanentError where it refuses
    for good; messages carry Slurm's own words.
    """

    async def submit(self, submission: Submission) -> SlurmJobId:
        """Submit a script.

        :raises PermanentError: Slurm refuses this request whenever it comes (invalid option,
            a request larger than any node, unknown account).
        :raises TransientError: Slurm refuses now (submit limits: reason ``SubmitLimit``) or does
            not answer.
        """

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        """The state of these jobs, from one squeue and, for those it does not show, one sacct.

        A job neither of them knows is absent from the answer.
        """

    async def find_jobs(self, name: str, *, since_s: float) -> tuple[JobObservation, ...]:
        """All jobs of this user with this name submitted since then, from squeue and sacct."""

    async def cancel(self, job_id: SlurmJobId) -> None:
        """Cancel a job; one that has already ended is no error."""

    async def partitions(self) -> tuple[Partition, ...]:
        """The partitions this user may submit to."""

    async def version(self) -> str:
        """``22.05.8``."""

    async def kill_wait_s(self) -> int:
        """Seconds between Slurm's SIGTERM and its SIGKILL (``KillWait`` of slurm.conf(5))."""


def parse_submit_output(text: str) -> SlurmJobId | None:
    """The id in the output of ``sbatch --parsable`` (``ID[;CLUSTER]``), None if not whole."""
    if not text.endswith("\n"):
        return None
    for line in text.splitlines():
        head = line.split(";", 1)[0].strip()
        if head.isascii() and head.isdigit():
            return SlurmJobId(int(head))
    return None
