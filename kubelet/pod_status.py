"""v1.PodStatus from what is known of a pod. Pure.

Sources: pkg/kubelet/kubelet_pods.go (generateAPIPodStatus, getPhase),
pkg/kubelet/status/generate.go (conditions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hpk.model.job import JobObservation
from hpk.model.plan import ImagePlan, RestartPolicy
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState
from kubelet.apiserver import Json
from kubelet.observations import Observation
from kubelet.outcome import Outcome

OUR_CONDITIONS = frozenset({"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"})
"""Types of the conditions a kubelet writes; others belong to others."""

_TERMINAL = ("Succeeded", "Failed")
_UNKNOWN_MESSAGE = "The container could not be located when the pod was terminated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why containers do not run yet, for ``state.waiting``."""

    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusInput:
    """All that a status is made of.

    :param waiting: for containers the supervisor has not spoken of.
    :param images: of the plan, by container name; empty before there is one.
    :param now: RFC 3339.
    """

    pod: Mapping[str, Any]
    seen: Observation
    outcome: Outcome | None
    waiting: Waiting
    images: Mapping[str, ImagePlan]
    runtime: str
    now: str


def queue_waiting(job: JobObservation | None) -> Waiting:
    """How a queued job reads in ``kubectl get pods`` and ``describe``."""
    if job is None or not job.state.is_queued or job.reason in ("", "None"):
        return Waiting()
    message = f"Slurm job {job.job_id} is queued: {job.reason}"
    if job.start_time_s is not None:
        message += f", expected to start {rfc3339(job.start_time_s)}"
    return Waiting(reason=f"Slurm{job.reason}", message=message)


def rfc3339(at_s: float) -> str:
    """Unix seconds as ``metav1.Time``."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def compute_status(given: StatusInput) -> Json:
    """The whole status of the Pod, conditions of other writers kept."""
    old: Mapping[str, Any] = given.pod.get("status") or {}
    containers = _container_statuses(given)
    phase = _phase(given, containers)
    status: Json = {
        "phase": phase,
        "startTime": old.get("startTime") or given.now,
        "containerStatuses": containers,
        "conditions": _conditions(given, phase, containers),
        "observedGeneration": given.pod["metadata"].get("generation"),
    }
    if given.outcome is not None and given.outcome.reason:
        status |= {"reason": given.outcome.reason, "message": given.outcome.message}
    debuggers = given.pod["spec"].get("ephemeralContainers") or []
    if debuggers:
        status["ephemeralContainerStatuses"] = [
            _refused_debugger(spec, index) for index, spec in enumerate(debuggers)
        ]
    host_ip = given.seen.record.host_ip if given.seen.record is not None else ""
    if host_ip:
        # Pods are on their node's own network.
        status |= {
            "hostIP": host_ip,
            "hostIPs": [{"ip": host_ip}],
            "podIP": host_ip,
            "podIPs": [{"ip": host_ip}],
        }
    if old.get("qosClass"):
        status["qosClass"] = old["qosClass"]
    return status


def rejected_status(pod: Mapping[str, Any], reason: str, message: str, now: str) -> Json:
    """The status of a Pod that admission refused (kubelet.go, rejectPod)."""
    old: Mapping[str, Any] = pod.get("status") or {}
    return {
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "startTime": old.get("startTime") or now,
        "conditions": list(old.get("conditions") or []),
        "qosClass": old.get("qosClass"),
        "observedGeneration": pod["metadata"].get("generation"),
    }


def _refused_debugger(spec: Mapping[str, Any], index: int) -> Json:
    """`kubectl debug` adds containers to a Pod that was admitted long ago: only they are refused,
    and whoever waits for them sees why."""
    message = f"spec.ephemeralContainers[{index}]: is not supported yet"
    return {
        "name": spec["name"],
        "image": spec.get("image", ""),
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "lastState": {},
        "state": {
            "terminated": {"exitCode": 128, "reason": "UnsupportedField", "message": message}
        },
    }


def _container_statuses(given: StatusInput) -> list[Json]:
    records: dict[str, ContainerRecord] = {}
    if given.seen.record is not None:
        records = {c.name: c for c in given.seen.record.containers}
    old = {c.get("name"): c for c in (given.pod.get("status") or {}).get("containerStatuses") or []}
    return [
        _container_status(given, spec, records.get(spec["name"]), old.get(spec["name"]))
        for spec in given.pod["spec"]["containers"]
    ]


def _container_status(
    given: StatusInput,
    spec: Mapping[str, Any],
    record: ContainerRecord | None,
    old: Mapping[str, Any] | None,
) -> Json:
    image = given.images.get(spec["name"])
    status: Json = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": image.image_id if image else (old or {}).get("imageID", ""),
        "restartCount": 0,
        "ready": False,
        "started": False,
        "lastState": {},
        "state": {"waiting": _waiting_json(given.waiting)},
    }
    if record is not None:
        status |= _from_record(record, given.runtime)
    elif old is not None and "waiting" not in (old.get("state") or {"waiting": {}}):
        # Nothing new is known of it (its files are gone, say): what was reported stands.
        return dict(old)
    if given.outcome is not None and "terminated" not in status["state"]:
        status["state"] = {"terminated": _unlocated(given, given.outcome, record)}
        status |= {"ready": False, "started": False}
    return status


def _waiting_json(waiting: Waiting) -> Json:
    return {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})


def _from_record(record: ContainerRecord, runtime: str) -> Json:
    running = record.state.phase is ContainerPhase.RUNNING
    container_id = f"{runtime}://{record.container_id}" if record.container_id else ""
    status: Json = {
        "restartCount": record.restart_count,
        "ready": running,
        "started": running,
        "state": _state_json(record.state, container_id),
    }
    if container_id:
        status["containerID"] = container_id
    if record.last_state is not None:
        last_id = f"{runtime}://{record.last_container_id}" if record.last_container_id else ""
        status["lastState"] = _state_json(record.last_state, last_id)
    return status


def _state_json(state: ContainerState, container_id: str) -> Json:
    if state.phase is ContainerPhase.RUNNING:
        started = rfc3339(state.started_at_s) if state.started_at_s is not None else None
        return {"running": {"startedAt": started}}
    if state.phase is ContainerPhase.WAITING:
        return {"waiting": _waiting_json(Waiting(reason=state.reason, message=state.message))}
    terminated: Json = {"exitCode": 137 if state.exit_code is None else state.exit_code}
    if state.signal:
        terminated["signal"] = state.signal
    if state.reason:
        terminated["reason"] = state.reason
    if state.message:
        terminated["message"] = state.message
    if state.started_at_s is not None:
        terminated["startedAt"] = rfc3339(state.started_at_s)
    if state.finished_at_s is not None:
        terminated["finishedAt"] = rfc3339(state.finished_at_s)
    if container_id:
        terminated["containerID"] = container_id
    return {"terminated": terminated}


def _unlocated(given: StatusInput, outcome: Outcome, record: ContainerRecord | None) -> Json:
    """A container nobody saw end; a pod's end is its end (kubelet_pods.go)."""
    # Upstream says ContainerStatusUnknown where it knows no better; Slurm does know.
    reason = outcome.reason or "ContainerStatusUnknown"
    message = outcome.message or _UNKNOWN_MESSAGE
    terminated: Json = {"exitCode": 137, "reason": reason, "message": message}
    if record is not None and record.state.started_at_s is not None:
        terminated["startedAt"] = rfc3339(record.state.started_at_s)
    ended_at_s = given.seen.job.end_time_s if given.seen.job is not None else None
    if ended_at_s is not None:
        terminated["finishedAt"] = rfc3339(ended_at_s)
    if record is not None and record.container_id:
        # It ran, and left a log, which is shown only of a container that has an id.
        terminated["containerID"] = f"{given.runtime}://{record.container_id}"
    return terminated


def _phase(given: StatusInput, containers: Sequence[Json]) -> str:
    """getPhase of kubelet_pods.go; a terminal phase, once reported, never changes."""
    old = str((given.pod.get("status") or {}).get("phase") or "Pending")
    if old in _TERMINAL:
        return old
    if given.outcome is not None:
        return "Succeeded" if given.outcome.succeeded else "Failed"
    policy = RestartPolicy(given.pod["spec"].get("restartPolicy", "Always"))
    waiting = running = stopped = failed = 0
    for container in containers:
        state = container["state"]
        if "running" in state:
            running += 1
        elif "terminated" in state:
            stopped += 1
            failed += state["terminated"]["exitCode"] != 0
        elif "terminated" in container["lastState"]:
            stopped += 1
            failed += container["lastState"]["terminated"]["exitCode"] != 0
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running or policy is RestartPolicy.ALWAYS:
        return "Running"
    if policy is RestartPolicy.ON_FAILURE and failed:
        return "Running"
    # All ended: the supervisor's finished record, a moment from here, gives the outcome.
    return "Running" if stopped else "Pending"


def _conditions(given: StatusInput, phase: str, containers: Sequence[Json]) -> list[Json]:
    record = given.seen.record
    sandbox = record is not None and phase not in _TERMINAL
    names_not_ready = [c["name"] for c in containers if not c["ready"]]
    ready = not names_not_ready and phase not in _TERMINAL
    if phase == "Succeeded":
        why = {"reason": "PodCompleted"}
    elif phase == "Failed":
        why = {"reason": "PodFailed"}
    else:
        listed = " ".join(names_not_ready)
        why = {
            "reason": "ContainersNotReady",
            "message": f"containers with unready status: [{listed}]",
        }
    not_ready = {} if ready else why
    ours: list[Json] = [
        {"type": "PodReadyToStartContainers", "status": _bool(sandbox)},
        {
            "type": "Initialized",
            "status": "True",
            **({"reason": "PodCompleted"} if phase == "Succeeded" else {}),
        },
        {"type": "Ready", "status": _bool(ready), **not_ready},
        {"type": "ContainersReady", "status": _bool(ready), **not_ready},
    ]
    old = list((given.pod.get("status") or {}).get("conditions") or [])
    kept = [c for c in old if c.get("type") not in {c["type"] for c in ours}]
    generation = given.pod["metadata"].get("generation")
    return kept + [_with_transition(c, old, given.now, generation) for c in ours]


def _with_transition(
    condition: Json, old: Sequence[Json], now: str, generation: int | None
) -> Json:
    before = next((c for c in old if c.get("type") == condition["type"]), {})
    same = before.get("status") == condition["status"]
    return {
        **condition,
        "lastProbeTime": None,
        "lastTransitionTime": before.get("lastTransitionTime") if same else now,
        "observedGeneration": generation,
    }


def _bool(value: bool) -> str:
    return "True" if value else "False"
