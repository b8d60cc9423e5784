"""What is known of each attempt: the supervisor's record, whether it speaks now, and Slurm's word.

In memory, no I/O.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hpk.model.ids import Nonce, PodUid
from hpk.model.job import JobObservation
from hpk.model.record import PodPhase, SupervisorRecord

_HEARD_S = 30.0
"""How long a supervisor without a channel counts as heard after its last record."""
COMES_BACK_S = 15.0
"""How long a supervisor may take to come back whose channel ended while this kubelet watched."""
FIRST_COMES_S = 90.0
"""How long one may take that this kubelet has not heard yet; it tries once a minute at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One attempt, as seen so far.

    :param absent_since_s: since when squeue and sacct both answer without the job (monotonic
        seconds); None while it is seen or nobody answered.
    :param queued_looks: how many looks in a row found the job queued although its supervisor had
        spoken and has no channel now; ``queued_since_s`` is when the first did (monotonic seconds).
    :param over_since_s: since when the job is known to have ended (monotonic seconds).
    :param is_connected: whether its supervisor has an open channel now.
    :param was_connected: whether it had one since this kubelet started.
    :param heard_at_s: when its supervisor last said something over the channel or in a record that
        is new (monotonic seconds); None before it did.
    """

    record: SupervisorRecord | None = None
    job: JobObservation | None = None
    absent_since_s: float | None = None
    queued_looks: int = 0
    queued_since_s: float | None = None
    over_since_s: float | None = None
    is_connected: bool = False
    was_connected: bool = False
    heard_at_s: float | None = None

    @property
    def was_looked_for(self) -> bool:
        """Whether Slurm has answered about the job at all. Until then nothing is known of it."""
        return self.job is not None or self.absent_since_s is not None

    def was_requeued(self, now_s: float) -> bool:
        """Whether the job went back to the queue after its supervisor had run.

        Not while that supervisor speaks, or may come back: a slurmctld that lost its newest state
        in a crash shows a job as queued that runs.
        """
        if self.is_connected or self.queued_since_s is None or self.queued_looks < 2:
            return False
        patience_s = COMES_BACK_S if self.was_connected else FIRST_COMES_S
        if self.record is not None and self.record.phase is PodPhase.FINISHED:
            patience_s = 0.0
        return now_s - self.queued_since_s >= patience_s

    def is_heard(self, now_s: float) -> bool:
        """Whether its supervisor speaks now, or did a moment ago, and has not said goodbye."""
        if self.record is not None and self.record.phase is PodPhase.FINISHED:
            return False
        fresh = self.heard_at_s is not None and now_s - self.heard_at_s < _HEARD_S
        return self.is_connected or fresh


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
        self._by_nonce[record.nonce] = replace(old, record=record, heard_at_s=time.monotonic())
        self._notify(record.uid)

    def put_session(self, uid: PodUid, nonce: Nonce, *, is_connected: bool) -> None:
        """Take in that the supervisor's channel was opened or has ended."""
        old = self.get(nonce)
        if old.is_connected == is_connected:
            return
        self._by_nonce[nonce] = replace(
            old,
            is_connected=is_connected,
            was_connected=True,
            heard_at_s=time.monotonic(),
            # What Slurm said before the supervisor spoke says nothing of what comes after it.
            queued_looks=0,
            queued_since_s=None,
        )
        self._notify(uid)

    def put_job(self, uid: PodUid, nonce: Nonce, job: JobObservation | None) -> None:
        """Take in Slurm's answer about a job; None: Slurm answered, and does not know it."""
        old = self.get(nonce)
        if job is None:
            new = replace(old, absent_since_s=old.absent_since_s or time.monotonic())
        else:
            now_s = time.monotonic()
            again = job.state.is_queued and old.record is not None and not old.is_connected
            new = replace(
                old,
                job=job,
                absent_since_s=None,
                queued_looks=old.queued_looks + 1 if again else 0,
                queued_since_s=(old.queued_since_s or now_s) if again else None,
                over_since_s=(old.over_since_s or now_s) if job.state.is_terminal else None,
            )
        self._by_nonce[nonce] = new
        # What has gone or ended is told at each look: the worker waits for time to pass then.
        if job is None or job.state.is_terminal or new.queued_looks or new != old:
            self._notify(uid)

    def forget(self, nonce: Nonce) -> None:
        """The attempt is over and its Pod is gone."""
        self._by_nonce.pop(nonce, None)
