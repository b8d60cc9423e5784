"""squeue and sacct: what Slurm says of jobs, no more often than it can bear.

One squeue answers all who asked before it began. Accounting is asked only about jobs that squeue
does not show, or shows as ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from hpk.model.errors import HpkError, TransientError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.slurm.governor import Governor
from hpk.slurm.parse import SACCT_FIELDS, parse_sacct, parse_squeue, squeue_format
from hpk.slurm.programs import Programs, in_chunks
from hpk.slurm.refusals import slurm_words

T = TypeVar("T")

_CLOCK_SKEW_S = 300
_RECOVERED_WITHIN_S = 3600
"""How long after its sbatch began a job is looked for in accounting by when it was submitted."""


class Looking:
    """The looks of one process.

    :param interval_s: the shortest time between two looks, in the long run.
    """

    def __init__(self, programs: Programs, interval_s: float) -> None:
        self._programs = programs
        self._user = str(os.getuid())
        self._marker = secrets.token_hex(8)
        self._squeue_turn = _Turn(Governor(interval_s))
        self._sacct_turn = _Turn(Governor(0.0))
        self._seen: tuple[JobObservation, ...] | HpkError = ()
        self._seen_began_s = float("-inf")
        self._known: Mapping[str, JobObservation] = {}

    @property
    def cost_s(self) -> float:
        """What the last squeue and the last sacct took."""
        return self._squeue_turn.governor.cost_s + self._sacct_turn.governor.cost_s

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        """See SlurmBackend.

        A job that squeue does not show while accounting does not answer is UNKNOWN in the answer:
        only a job that both deny is absent.
        """
        if not ids:
            return {}
        wanted = set(ids)
        found = {job.job_id: job for job in await self._squeue() if job.job_id in wanted}
        asked = [i for i in wanted if i not in found or found[i].state.is_terminal]
        if not asked:
            return found
        try:
            recorded = await self._sacct(["-j", ",".join(some)] for some in in_chunks(asked))
        except TransientError as error:
            return {i: _unknown(i, error) for i in asked if i not in found} | found
        _merge(found, (job for job in recorded if job.job_id in wanted))
        return found

    async def find(
        self, name: str, directory: Path, *, since_s: float
    ) -> tuple[JobObservation, ...]:
        """The jobs that were submitted from this directory, or under this name, since then.

        The name alone is not enough: a plugin of the site may have changed it.
        """

        def is_wanted(job: JobObservation) -> bool:
            return name in job.name or f"{directory}/" in job.command

        found = {job.job_id: job for job in await self._squeue() if is_wanted(job)}
        since, until = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since_s + delta_s))
            for delta_s in (-_CLOCK_SKEW_S, _RECOVERED_WITHIN_S)
        )
        recorded = await self._sacct([["-u", self._user, "-S", since, "-E", until]])
        _merge(found, (job for job in recorded if is_wanted(job)))
        return tuple(found[job_id] for job_id in sorted(found))

    async def _squeue(self) -> tuple[JobObservation, ...]:
        asked_s = time.monotonic()
        async with self._squeue_turn.lock:
            if self._seen_began_s < asked_s:
                await self._squeue_turn.wait()
                self._seen_began_s = time.monotonic()
                try:
                    self._seen = await self._squeue_turn.cost_of(self._ask_squeue())
                except HpkError as error:
                    self._seen = error
            seen = self._seen
        if isinstance(seen, HpkError):
            raise seen
        return seen

    async def _ask_squeue(self) -> tuple[JobObservation, ...]:
        form = squeue_format(self._marker)
        text = await self._programs.query(
            ["squeue", "-h", "-a", "-t", "all", "-u", self._user, "-o", form]
        )
        # Ten thousand jobs take 0.1 s: not on the event loop.
        self._known = await asyncio.to_thread(parse_squeue, text, self._marker, self._known)
        return tuple(self._known.values())

    async def _sacct(self, calls: Iterable[Sequence[str]]) -> list[JobObservation]:
        """What accounting knows; nothing where the site keeps none."""
        async with self._sacct_turn.lock:
            await self._sacct_turn.wait()
            return await self._sacct_turn.cost_of(self._ask_sacct(calls))

    async def _ask_sacct(self, calls: Iterable[Sequence[str]]) -> list[JobObservation]:
        argv = ["sacct", "-n", "-p", f"--delimiter={self._marker}", f"--format={SACCT_FIELDS}"]
        found: list[JobObservation] = []
        for arguments in calls:
            done = await self._programs.run([*argv, *arguments])
            if done.exit_code == 0:
                found += await asyncio.to_thread(parse_sacct, done.stdout, self._marker)
            elif "accounting storage is disabled" not in done.stderr:
                raise TransientError(f"sacct: {slurm_words(done.stderr)}", reason="NoAccounting")
        return found


class _Turn:
    """One look at a time, at the governor's pace."""

    def __init__(self, governor: Governor) -> None:
        self.governor = governor
        self.lock = asyncio.Lock()

    async def wait(self) -> None:
        """Until the next look may begin; with the lock held."""
        await asyncio.sleep(self.governor.pause_s())

    async def cost_of(self, look: Coroutine[None, None, T]) -> T:
        """Look, and let the governor know what it took."""
        began_s = time.monotonic()
        try:
            return await look
        finally:
            self.governor.looked(time.monotonic() - began_s)


def _merge(found: dict[SlurmJobId, JobObservation], recorded: Iterable[JobObservation]) -> None:
    """Add what accounting says; it decides on jobs that have ended, squeue on all others.

    Accounting lags: it may not have heard yet of an end that squeue shows. Of a job that never
    started it does not know the name at first, so squeue's stays.
    """
    for job in recorded:
        seen = found.get(job.job_id)
        if seen is None:
            found[job.job_id] = job
        elif job.state.is_terminal and seen.state.is_terminal:
            found[job.job_id] = dataclasses.replace(job, name=seen.name, command=seen.command)


def _unknown(job_id: SlurmJobId, error: HpkError) -> JobObservation:
    return JobObservation(
        job_id=job_id,
        name="",
        state=JobState.UNKNOWN,
        reason=error.message,
        nodes="",
        exit_code=None,
        signal=0,
        start_time_s=None,
        end_time_s=None,
        source="squeue",
    )
