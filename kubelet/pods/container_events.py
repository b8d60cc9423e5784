"""What happens to a pod's containers, as Events in upstream's words, each once.

Source: pkg/kubelet/kuberuntime/kuberuntime_container.go, kuberuntime_manager.go (doBackOff).
"""

from __future__ import annotations

from collections.abc import Iterator

from hpk.model.record import (
    ContainerPhase,
    ContainerRecord,
    ContainerState,
    PodPhase,
    SupervisorRecord,
)
from kubelet.api.apiserver import Json
from kubelet.status.events import EventRecorder

_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


class ContainerEvents:
    """Of one pod."""

    def __init__(self, events: EventRecorder) -> None:
        self._events = events
        self._started: set[str] = set()
        self._has_told_stop = False
        self._backed_off: dict[str, str] = {}
        self._told: dict[tuple[str, str, str], int] = {}

    def report(self, pod: Json, record: SupervisorRecord) -> None:
        """What is new in the record."""
        self._report_starts(pod, record)
        self._report_back_offs(pod, record)
        self._report_observed(pod, record)
        if record.phase is PodPhase.STOPPING:
            # Nobody asked: its time is over, or it is evicted.
            self._tell_stop(pod, [c.name for c in record.all_containers if _runs(c)])

    def stopping(self, pod: Json) -> None:
        """Those that run are told to stop.

        :param pod: with its newest status.
        """
        running = (s for s in _statuses(pod) if "running" in (s.get("state") or {}))
        self._tell_stop(pod, [status["name"] for status in running])

    def _tell_stop(self, pod: Json, names: list[str]) -> None:
        if self._has_told_stop:
            return
        self._has_told_stop = True
        for name in names:
            self._events.normal(pod, "Killing", f"Stopping container {name}", container=name)

    def _report_starts(self, pod: Json, record: SupervisorRecord) -> None:
        # What a kubelet before this one has reported, it has told.
        told = self._started | set(_ids_reported(pod))
        self._started = set()
        for name, container_id, state in _starts(record):
            self._started.add(container_id)
            if container_id in told:
                continue
            message = "Container created"
            self._events.normal(pod, "Created", message, container=name, is_minor=True)
            if state.started_at_s is not None:
                self._events.normal(pod, "Started", "Container started", container=name)
            else:
                self._events.warning(pod, "Failed", f"Error: {state.message}", container=name)

    def _report_back_offs(self, pod: Json, record: SupervisorRecord) -> None:
        meta = pod["metadata"]
        full_name = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
        waiting = {
            container.name: container.last_container_id
            for container in record.all_containers
            if container.state.phase is ContainerPhase.WAITING
            and container.state.reason == "CrashLoopBackOff"
        }
        for name, last_id in waiting.items():
            if self._backed_off.get(name) != last_id:
                message = f"Back-off restarting failed container {name} in pod {full_name}"
                self._events.warning(pod, "BackOff", message, container=name)
        self._backed_off = waiting

    def _report_observed(self, pod: Json, record: SupervisorRecord) -> None:
        """What the supervisor saw since it was last heard; all of it by a new kubelet."""
        told = {}
        for event in record.events:
            key = (event.container, event.reason, event.message)
            told[key] = event.count
            if self._told.get(key) != event.count:
                self._events.observed(pod, event)
        self._told = told


def _starts(record: SupervisorRecord) -> Iterator[tuple[str, str, ContainerState]]:
    """Each start that is known, with the container's name and the start's id; the last last."""
    for container in record.all_containers:
        for container_id, state in (
            (container.last_container_id, container.last_state),
            (container.container_id, container.state),
        ):
            if state is not None and (state.started_at_s is not None or _has_failed(state)):
                yield container.name, container_id, state


def _runs(container: ContainerRecord) -> bool:
    return container.state.phase is ContainerPhase.RUNNING


def _has_failed(state: ContainerState) -> bool:
    return state.phase is ContainerPhase.TERMINATED and state.reason == "StartError"


def _statuses(pod: Json) -> Iterator[Json]:
    status = pod.get("status") or {}
    for field in _STATUSES:
        yield from status.get(field) or []


def _ids_reported(pod: Json) -> Iterator[str]:
    """Of starts that the Pod's status tells of."""
    for status in _statuses(pod):
        # One that waits has an id before it starts.
        if "waiting" not in (status.get("state") or {}):
            yield _bare(status)
        yield _bare((status.get("lastState") or {}).get("terminated") or {})


def _bare(state: Json) -> str:
    return str(state.get("containerID") or "").rpartition("/")[2]
