"""PLEG: turns what Slurm and the disk say into observations. One squeue answers for all pods.

Supervisors with an open channel report by themselves; polling is for queued jobs' reasons, for
jobs that ended without a word, and for supervisors that cannot reach us.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpk.journal import Attempt
from hpk.model import codec
from hpk.model.errors import HpkError, ParseError
from hpk.model.ids import Nonce
from hpk.model.job import JobObservation
from hpk.model.record import SupervisorRecord
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths
from kubelet.evidence.observations import Observation, Observations
from kubelet.shared_files import SharedFiles

log = logging.getLogger(__name__)

_BRISK_S = 30.0
_CALM_FACTOR = 5
_CALM_COST_FACTOR = 100
_CALM_MOST_S = 60.0
_RECORD_DEADLINE_S = 5.0
_AT_ONCE = 500
"""How many jobs are looked through before others get their turn."""
_HURRIED_PAUSE_S = 0.3


class Pleg:
    """Watches the attempts it is told to track."""

    def __init__(
        self,
        *,
        slurm: SlurmBackend,
        paths: HpkPaths,
        files: SharedFiles,
        observations: Observations,
        is_connected: Callable[[Nonce], bool],
        missing: Callable[[SupervisorRecord], None],
        interval_s: float,
    ) -> None:
        """
        :param missing: told of the record of a supervisor that has no channel, at each look.
        """
        self._slurm = slurm
        self._paths = paths
        self._files = files
        self._began_s = time.time()
        self._unread: list[Attempt] = []
        self._observations = observations
        self._is_connected = is_connected
        self._missing = missing
        self._interval_s = interval_s
        self._tracked: dict[Nonce, Attempt] = {}
        self._hurry = asyncio.Event()
        self._last_news_s = time.monotonic()
        self.problem = ""

    def track(self, attempt: Attempt) -> None:
        """Watch this attempt's job.

        Of one that a kubelet before us submitted, the record on disk is read before Slurm is asked.
        """
        if attempt.nonce in self._tracked or attempt.job_id is None:
            return
        self._tracked[attempt.nonce] = attempt
        if attempt.intent_at_s < self._began_s:
            self._unread.append(attempt)
        self.hurry()

    def untrack(self, nonce: Nonce) -> None:
        """The attempt has ended."""
        self._tracked.pop(nonce, None)

    def hurry(self) -> None:
        """Something happened: look soon, and often for a while."""
        self._last_news_s = time.monotonic()
        self._hurry.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            if self._tracked:
                await self.relist()
            try:
                async with asyncio.timeout(self._pause_s() if self._tracked else None):
                    await self._hurry.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_HURRIED_PAUSE_S)
            self._hurry.clear()

    def _pause_s(self) -> float:
        """How long to wait where nothing happens.

        The back end keeps to what Slurm can bear. Beyond that, where no job has changed for a
        while, a hundredth of the time is enough.
        """
        if time.monotonic() - self._last_news_s < _BRISK_S:
            return self._interval_s
        costly_s = min(_CALM_COST_FACTOR * self._slurm.look_cost_s, _CALM_MOST_S)
        return max(self._interval_s * _CALM_FACTOR, costly_s)

    async def relist(self) -> None:
        """Look once. Whatever goes wrong is `problem`, until a look succeeds."""
        try:
            await self._relist()
        except Exception as error:
            expected = isinstance(error, HpkError | OSError)
            if not self.problem:
                log.warning("Slurm's jobs cannot be seen: %s", error, exc_info=not expected)
            self.problem = str(error) if expected else f"{type(error).__name__}: {error}"
        else:
            self.problem = ""

    async def _relist(self) -> None:
        unread, self._unread = self._unread, []
        await self._read_records(unread)
        tracked = list(self._tracked.values())
        jobs = await self._slurm.jobs([a.job_id for a in tracked if a.job_id is not None])
        found = {
            attempt.nonce: _of_attempt(attempt, jobs.get(attempt.job_id))
            for attempt in tracked
            if attempt.job_id is not None
        }
        await self._read_records([a for a in tracked if self._wants_record(a, found[a.nonce])])
        for number, attempt in enumerate(tracked):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            job = found[attempt.nonce]
            seen = self._observations.get(attempt.nonce)
            if seen.job is None or job is None or job.state is not seen.job.state:
                self._last_news_s = time.monotonic()
            if _counts(seen, job):
                self._observations.put_job(attempt.pod.uid, attempt.nonce, job)

    async def _read_records(self, attempts: Sequence[Attempt]) -> None:
        """Read what supervisors have written. A file system that does not answer is not waited for:
        Slurm's word comes all the same."""
        for first in range(0, len(attempts), _AT_ONCE):
            some = attempts[first : first + _AT_ONCE]
            records = await asyncio.gather(*(self._read_record(attempt) for attempt in some))
            for record in records:
                if record is not None:
                    self._observations.put_record(record)
                    if not self._is_connected(record.nonce):
                        self._missing(record)

    async def _read_record(self, attempt: Attempt) -> SupervisorRecord | None:
        try:
            return await self._files.do(self._load_record, attempt, deadline_s=_RECORD_DEADLINE_S)
        except OSError as error:
            log.warning("record of %s: %s", attempt.pod, error)
            return None

    def _wants_record(self, attempt: Attempt, job: JobObservation | None) -> bool:
        if job is None or job.state.is_terminal:
            return True
        return not (job.state.is_queued or self._is_connected(attempt.nonce))

    def _load_record(self, attempt: Attempt) -> SupervisorRecord | None:
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        try:
            record = codec.loads(SupervisorRecord, Path(layout.record).read_bytes())
        except FileNotFoundError:
            return None
        except ParseError as error:
            log.warning("record of %s: %s", attempt.pod, error)
            return None
        ours = record.uid == attempt.pod.uid and record.nonce == attempt.nonce
        return record if ours else None


def _counts(seen: Observation, job: JobObservation | None) -> bool:
    """Whether an answer that may be the last one again says anything, if only by coming again."""
    if job is None or job is not seen.job or job.state.is_terminal:
        return True
    return seen.absent_since_s is not None or (job.state.is_queued and seen.record is not None)


def _of_attempt(attempt: Attempt, job: JobObservation | None) -> JobObservation | None:
    if job is not None and not attempt.owns(job):
        log.warning("id now belongs to another job pod=%s job=%s", attempt.pod, job.job_id)
        return None
    return job
