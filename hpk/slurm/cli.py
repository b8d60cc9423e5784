"""Slurm through its own programs: sbatch, squeue, sacct, scancel, scontrol, sacctmgr.

What needs more than a call and a parser has a module of its own: submitting, looking, cancelling.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from hpk import subproc
from hpk.model.errors import HpkError, ParseError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, JobState, Partition
from hpk.slurm.cancelling import Cancelling
from hpk.slurm.looking import Looking
from hpk.slurm.parse import parse_kill_wait
from hpk.slurm.partitions import Partitions
from hpk.slurm.programs import Programs, in_chunks
from hpk.slurm.submitting import answer_of, run_sbatch
from hpk.slurm.usage import (
    SACCT_FORMAT,
    SQUEUE_FORMAT,
    JobUsage,
    parse_sacct_usage,
    parse_squeue_usage,
)

_INTERVAL_S = 0.3


class CliBackend:
    """SlurmBackend over Slurm's command line programs.

    :param environment: added to the few variables each program gets.
    :param interval_s: the shortest time between two looks at jobs, in the long run.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, interval_s: float = _INTERVAL_S
    ) -> None:
        self._programs = Programs(environment or {})
        self._submit_environment = _submit_environment(environment or {})
        self._looking = Looking(self._programs, interval_s)
        self._cancelling = Cancelling(self._programs)
        self._partitions = Partitions(self._programs)
        self._user = str(os.getuid())

    @property
    def look_cost_s(self) -> float:
        """See SlurmBackend."""
        return self._looking.cost_s

    async def submit(self, script: Path, *, directory: Path) -> SlurmJobId:
        """See SlurmBackend."""
        return await run_sbatch(script, directory, self._submit_environment)

    async def recover(
        self, name: str, *, since_s: float, directory: Path, settle: bool = True
    ) -> SlurmJobId | None:
        """See SlurmBackend."""
        job_id = await answer_of(directory, wait=settle)
        if job_id is not None:
            return job_id
        found = await self._looking.find(name, directory, since_s=since_s)
        return found[0].job_id if found else None

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        """See SlurmBackend."""
        return await self._looking.jobs(ids)

    async def cancel(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, HpkError]:
        """See SlurmBackend."""
        return await self._cancelling.cancel(ids)

    async def usage(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobUsage]:
        """What these jobs hold and have used: one squeue, and one sacct for those that ended.

        :raises TransientError: Slurm does not answer; where only accounting does not, the jobs
            that it alone knows are absent.
        """
        if not ids:
            return {}
        argv = ["squeue", "-h", "-a", "-t", "all", "-u", self._user, "-O", SQUEUE_FORMAT]
        found = parse_squeue_usage(await self._programs.query(argv), ids)
        asked = [i for i in ids if i not in found or JobState(found[i].state).is_terminal]
        argv = ["sacct", "-n", "-P", "-X", f"--format={SACCT_FORMAT}"]
        for some in in_chunks(asked):
            done = await self._programs.run([*argv, "-j", ",".join(some)])
            if done.exit_code == 0:
                found |= parse_sacct_usage(done.stdout)
        return found

    async def partitions(self) -> tuple[Partition, ...]:
        """See SlurmBackend."""
        return await self._partitions.get()

    async def version(self) -> str:
        """See SlurmBackend."""
        text = await self._programs.query(["sbatch", "--version"])
        words = text.split()
        if len(words) != 2:
            raise ParseError(f"not a version of Slurm: {text.strip()!r}")
        return words[1]

    async def kill_wait_s(self) -> int:
        """See SlurmBackend."""
        return parse_kill_wait(await self._programs.query(["scontrol", "show", "config"]))


def _submit_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What sbatch gets and, by --export=ALL, the job: nothing that holds on this host only."""
    environment = subproc.base_environment(extra)
    environment.pop("TMPDIR", None)
    return environment
