"""Says how one pod is: its status, and an event for each thing that happened to it, once."""

from __future__ import annotations

import logging
import time

from hpk.journal import Attempt
from hpk.model.plan import ContainerPlan, PodPlan
from kubelet.api.apiserver import Json
from kubelet.api.meta_time import rfc3339_now
from kubelet.evidence.observations import Observation
from kubelet.evidence.outcome import Outcome
from kubelet.pods.actions import PodView
from kubelet.pods.container_events import ContainerEvents
from kubelet.pods.pod_state import PodState
from kubelet.pods.queue_news import QueueNews
from kubelet.status.container_statuses import Held, Waiting
from kubelet.status.events import EventRecorder
from kubelet.status.pod_status import StatusInput, compute_status, queue_waiting, rejected_status
from kubelet.status.status_manager import StatusManager

log = logging.getLogger(__name__)


class PodReporter:
    """Turns views of one pod into status and events."""

    def __init__(self, *, statuses: StatusManager, events: EventRecorder, state: PodState) -> None:
        self._statuses = statuses
        self._events = events
        self._state = state
        self._queue = QueueNews()
        self._submitted = ""
        self._waiting_told = Waiting()
        self._containers = ContainerEvents(events)
        self.ephemeral = Held()
        """What keeps ephemeral containers from running."""

    async def report(self, pod: Json, view: PodView) -> None:
        """The status of a pod that was submitted."""
        outcome = view.outcome
        expected = view.is_over or view.deletion is not None
        if outcome is not None and outcome.reason and not expected:
            self._events.warning(pod, outcome.reason, outcome.message)
        waiting = queue_waiting(view.seen.job)
        job = view.seen.job
        is_new = self._queue.is_new_reason(pod, job, waiting)
        is_moved = self._queue.is_new_start(job, time.time())
        told = waiting.message if is_new or is_moved else ""
        if self._submitted:
            # One Event with Slurm's first word, if that has come.
            told, self._submitted = "; ".join(filter(None, (self._submitted, told))), ""
            self._events.normal(pod, "SlurmJobSubmitted", told)
        elif told:
            self._events.normal(pod, "SlurmJobPending", told, is_minor=not is_new)
        if view.seen.record is not None:
            self._containers.report(pod, view.seen.record)
        await self._write(pod, view.attempt, view.seen, outcome, waiting)

    async def report_waiting(
        self, pod: Json, waiting: Waiting, *, refusal: Waiting | None = None
    ) -> None:
        """The status of a pod that could not be submitted yet.

        :param refusal: that it never will be as things are.
        """
        await self._write(pod, None, Observation(), None, waiting, refusal)

    async def report_refusal(self, pod: Json, waiting: Waiting, *, for_good: bool = False) -> None:
        """The same, where Slurm said why; the reason becomes an event when it is new.

        :param for_good: until somebody changes something.
        """
        if waiting != self._waiting_told:
            self._events.warning(pod, waiting.reason, waiting.message)
        self._waiting_told = waiting
        await self.report_waiting(pod, waiting, refusal=waiting if for_good else None)

    async def reject(self, pod: Json, reason: str, message: str) -> None:
        """Fail the Pod: it cannot run here as it is written (kubelet.go, rejectPod)."""
        self._events.warning(pod, reason, message)
        await self._statuses.update(pod, rejected_status(pod, reason, message, rfc3339_now()))

    def submitted(self, attempt: Attempt, partition: str) -> None:
        """The pod is a Slurm job now; the next report says so."""
        self._submitted = f"Submitted as Slurm job {attempt.job_id} to partition {partition}"

    def stopping(self, pod: Json) -> None:
        """Its containers are told to stop."""
        self._containers.stopping(self._statuses.latest(pod))

    async def _write(
        self,
        pod: Json,
        attempt: Attempt | None,
        seen: Observation,
        outcome: Outcome | None,
        waiting: Waiting,
        refusal: Waiting | None = None,
    ) -> None:
        # Before its supervisor has spoken there is nothing that the plan explains.
        known = attempt if seen.record is not None else None
        plan = await self._state.plan(known) if known is not None else None
        status = compute_status(
            StatusInput(
                pod=self._statuses.latest(pod),
                seen=seen,
                outcome=outcome,
                waiting=waiting,
                images={c.name: c.image for c in _containers(plan)},
                runtime=plan.runtime if plan else "",
                now=rfc3339_now(),
                submitted=attempt is not None,
                refusal=refusal,
                ephemeral=self.ephemeral,
            )
        )
        if not await self._statuses.update(pod, status):
            log.info("pod has gone from the API server uid=%s", pod["metadata"]["uid"])


def _containers(plan: PodPlan | None) -> tuple[ContainerPlan, ...]:
    return plan.all_containers if plan else ()
