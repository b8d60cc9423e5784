"""What is known of each attempt: the supervisor's record and Slurm's word. In memory, no I/O."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hpk.model.ids import Nonce, PodUid
from hpk.model.job import JobObservation
from hpk.model.record import SupervisorRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One attempt, as seen so far.

    :param absent_since_s: since when squeue and sacct both answer without the job (monotonic
        seconds); None while it is seen or nobody answered.
    :param queued_looks: how many looks in a row found the job queued although its supervisor had
        spoken. The first may have begun before it spoke; two mean that the job was requeued.
    :param over_since_s: since when the job is known to have ended (monotonic seconds).
    """

    record: SupervisorRecord | None = None
    job: JobObservation | None = None
    absent_since_s: float | None = None
    queued_looks: int = 0
    over_since_s: float | None = None

    @property
    def was_requeued(self) -> bool:
        """Whether the job went back to the queue after its supervisor had run."""
        return self.queued_looks >= 2


class Observations:
    """The latest observation of each attempt; tells the Pod's worker when one changes."""

    def __init__(self, notify: Callable[[PodUid], None]) -> None:
        self._notify = notify
        self._by_nonce: dict[Nonce, Observation] = {}

    def get(self, nonce: Nonce) -> Observation:
        """What is known; an empty observation where nothing is."""
        return self._by_nonce.get(nonce, Observation())

    def put_record(self, record: SupervisorRecord) -> None:
        """Take in a record, unless a newer one of this attempt is known."""
        old = self.get(record.nonce)
        if old.record is not None and old.record.seq >= record.seq:
            return
        self._by_nonce[record.nonce] = replace(old, record=record)
        self._notify(record.uid)

    def put_job(self, uid: PodUid, nonce: Nonce, job: JobObservation | None) -> None:
        """Take in Slurm's answer about a job; None: Slurm answered, and does not know it."""
        old = self.get(nonce)
        if job is None:
            new = replace(old, absent_since_s=old.absent_since_s or time.monotonic())
        else:
            again = job.state.is_queued and old.record is not None
            looks = old.queued_looks + 1 if again else 0
            over = (old.over_since_s or time.monotonic()) if job.state.is_terminal else None
            new = replace(old, job=job, absent_since_s=None, queued_looks=looks, over_since_s=over)
        self._by_nonce[nonce] = new
        # What has gone or ended is told at each look: the worker waits for time to pass then.
        if job is None or job.state.is_terminal or new != old:
            self._notify(uid)

    def forget(self, nonce: Nonce) -> None:
        """The attempt is over and its Pod is gone."""
        self._by_nonce.pop(nonce, None)
