"""Says how one pod is: its status, and an event for each thing that happened to it, once."""

from __future__ import annotations

import logging

from hpk.journal import Attempt
from hpk.model.plan import ContainerPlan, PodPlan
from hpk.model.record import ContainerPhase, SupervisorRecord
from kubelet.api.apiserver import Json
from kubelet.api.meta_time import rfc3339_now
from kubelet.evidence.observations import Observation
from kubelet.evidence.outcome import Outcome
from kubelet.pods.actions import PodView
from kubelet.pods.pod_state import PodState
from kubelet.status.container_statuses import Waiting
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
        self._queue_reason = ""
        self._waiting_told = Waiting()
        self._started: set[str] = set()
        self._backed_off: dict[str, str] = {}
        self._told: dict[tuple[str, str, str], int] = {}

    async def report(self, pod: Json, view: PodView) -> None:
        """The status of a pod that was submitted."""
        outcome = view.outcome
        expected = view.is_over or view.deletion is not None
        if outcome is not None and outcome.reason and not expected:
            self._events.warning(pod, outcome.reason, outcome.message)
        waiting = queue_waiting(view.seen.job)
        is_new = waiting.reason != self._queue_reason and not _shows(pod, waiting)
        if is_new and waiting.message:
            self._events.normal(pod, "SlurmJobPending", waiting.message)
        self._queue_reason = waiting.reason
        if view.seen.record is not None:
            self._report_starts(pod, view.seen.record)
            self._report_back_offs(pod, view.seen.record)
            self._report_events(pod, view.seen.record)
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

    def submitted(self, pod: Json, attempt: Attempt, plan: PodPlan) -> None:
        """The pod is a Slurm job now."""
        message = f"Submitted as Slurm job {attempt.job_id} to partition {plan.partition}"
        self._events.normal(pod, "SlurmJobSubmitted", message)

    def stopping(self, pod: Json) -> None:
        """Its containers are told to stop."""
        for container in pod["spec"]["containers"]:
            self._events.normal(pod, "Killing", f"Stopping container {container['name']}")

    def _report_starts(self, pod: Json, record: SupervisorRecord) -> None:
        status = pod.get("status") or {}
        # One that waits has an id before it starts.
        reported = {
            str(state.get("containerID") or "").rpartition("/")[2]
            for field in ("initContainerStatuses", "containerStatuses")
            for container in status.get(field) or []
            for state in (
                {} if "waiting" in (container.get("state") or {}) else container,
                (container.get("lastState") or {}).get("terminated") or {},
            )
        }
        for container in (*record.init_containers, *record.containers):
            if container.state.started_at_s is None or container.container_id in self._started:
                continue
            self._started.add(container.container_id)
            if container.container_id not in reported:
                message = f"Started container {container.name} on {record.host}"
                self._events.normal(pod, "Started", message)

    def _report_back_offs(self, pod: Json, record: SupervisorRecord) -> None:
        """In the words of pkg/kubelet/kuberuntime (doBackOff), once for each time."""
        meta = pod["metadata"]
        full_name = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
        waiting = {
            container.name: container.last_container_id
            for container in (*record.init_containers, *record.containers)
            if container.state.phase is ContainerPhase.WAITING
            and container.state.reason == "CrashLoopBackOff"
        }
        for name, last_id in waiting.items():
            if self._backed_off.get(name) != last_id:
                message = f"Back-off restarting failed container {name} in pod {full_name}"
                self._events.warning(pod, "BackOff", message, container=name)
        self._backed_off = waiting

    def _report_events(self, pod: Json, record: SupervisorRecord) -> None:
        """What the supervisor saw since it was last heard; all of it by a new kubelet."""
        told = {}
        for event in record.events:
            key = (event.container, event.reason, event.message)
            told[key] = event.count
            if self._told.get(key) != event.count:
                self._events.observed(pod, event)
        self._told = told

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
            )
        )
        if not await self._statuses.update(pod, status):
            log.info("pod has gone from the API server uid=%s", pod["metadata"]["uid"])


def _shows(pod: Json, waiting: Waiting) -> bool:
    """Whether the Pod says so already: a kubelet before this one told why it waits."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if (status["state"].get("waiting") or {}).get("reason") == waiting.reason:
            return True
    return False


def _containers(plan: PodPlan | None) -> tuple[ContainerPlan, ...]:
    return (*plan.init_containers, *plan.containers) if plan else ()
