"""v1.ContainerStatus of each container. Pure.

Sources: pkg/kubelet/kubelet_pods.go (convertToAPIContainerStatuses),
pkg/kubelet/status/status_manager.go (TerminatePod).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpk.model.plan import ImagePlan
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState, SupervisorRecord
from kubelet.api.apiserver import Json
from kubelet.api.meta_time import rfc3339
from kubelet.evidence.outcome import Outcome
from kubelet.status.pod_phase import has_initialized, is_sidecar

_UNKNOWN_MESSAGE = "The container could not be located when the pod was terminated"
CREATING = "ContainerCreating"
INITIALIZING = "PodInitializing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why containers do not run yet, for ``state.waiting``."""

    reason: str = CREATING
    message: str = ""

    def as_json(self) -> Json:
        """Its reason, and its message where it has one."""
        return {"reason": self.reason} | ({"message": self.message} if self.message else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What keeps ephemeral containers from running, by their names.

    :param waiting: for an image.
    :param refused: for good: they cannot run here as they are written.
    """

    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    refused: Mapping[str, Waiting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSources:
    """What container statuses are made of.

    :param old: the status reported last.
    :param waiting: for containers the supervisor has not spoken of.
    :param ended_at_s: when the Slurm job ended, where that is known.
    :param submitted: the pod is a Slurm job, whose resources are settled.
    """

    spec: Mapping[str, Any]
    old: Mapping[str, Any]
    record: SupervisorRecord | None
    outcome: Outcome | None
    waiting: Waiting
    images: Mapping[str, ImagePlan]
    runtime: str
    ended_at_s: float | None
    submitted: bool


def ephemeral_statuses(given: StatusSources, held: Held) -> list[Json]:
    """The statuses of the containers that were added to the Pod.

    One that cannot run is refused alone, for its Pod was admitted long ago.
    """
    record = given.record
    specs = given.spec.get("ephemeralContainers") or []
    records = record.ephemeral_containers if record is not None else ()
    found = _statuses(given, specs, records, given.old.get("ephemeralContainerStatuses"))
    for status in found:
        # They are never started again, nor asked whether they are ready.
        status.pop("started", None)
        if "waiting" not in status["state"] or status["name"] in {item.name for item in records}:
            continue
        if refused := held.refused.get(status["name"]):
            status["state"] = {"terminated": {"exitCode": 128, **refused.as_json()}}
        else:
            waiting = held.waiting.get(status["name"], Waiting())
            status["state"] = {"waiting": waiting.as_json()}
    if given.outcome is not None:
        _end(given, [status for status in found if status.get("containerID")], given.outcome)
    return found


def container_statuses(given: StatusSources) -> tuple[list[Json], list[Json]]:
    """The statuses of the init containers, and of the others, in the Pod's order."""
    record = given.record
    init = _statuses(
        given,
        given.spec.get("initContainers") or [],
        record.init_containers if record is not None else (),
        given.old.get("initContainerStatuses"),
    )
    regular = _statuses(
        given,
        given.spec["containers"],
        record.containers if record is not None else (),
        given.old.get("containerStatuses"),
    )
    for spec, status in zip(given.spec.get("initContainers") or [], init, strict=True):
        if not is_sidecar(spec):
            ended = status["state"].get("terminated")
            status["ready"] = ended is not None and ended["exitCode"] == 0
    if given.outcome is not None:
        by_name = {status["name"]: status for status in (*init, *regular)}
        # Of a pod that was never initialized the containers never were, and go on waiting.
        lost = _begun(init) + (regular if has_initialized(given.spec, by_name) else [])
        _end(given, lost, given.outcome)
    return init, regular


def _statuses(
    given: StatusSources,
    specs: Sequence[Mapping[str, Any]],
    records: Sequence[ContainerRecord],
    old: Sequence[Mapping[str, Any]] | None,
) -> list[Json]:
    by_name = {record.name: record for record in records}
    old_by_name = {status.get("name"): status for status in old or []}
    return [
        _status(given, spec, by_name.get(spec["name"]), old_by_name.get(spec["name"]))
        for spec in specs
    ]


def _status(
    given: StatusSources,
    spec: Mapping[str, Any],
    record: ContainerRecord | None,
    old: Mapping[str, Any] | None,
) -> Json:
    image = given.images.get(spec["name"])
    waiting = given.waiting
    if waiting.reason == CREATING and given.spec.get("initContainers"):
        waiting = Waiting(reason=INITIALIZING, message=waiting.message)
    status: Json = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": image.image_id if image else (old or {}).get("imageID", ""),
        "restartCount": 0,
        "ready": False,
        "started": False,
        "lastState": {},
        "state": {"waiting": waiting.as_json()},
    }
    if record is not None:
        status |= _from_record(record, given.runtime)
    elif old is not None and "waiting" not in (old.get("state") or {"waiting": {}}):
        # Nothing new is known of it (its files are gone, say): what was reported stands.
        return dict(old)
    if given.submitted:
        status |= _resources(spec, old)
    return status


def _resources(spec: Mapping[str, Any], old: Mapping[str, Any] | None) -> Json:
    """What the container was given: the Pod's own words at the time its job was submitted.

    Whatever the Pod says later, Slurm will not change it, and what was reported stays.
    """
    given = (old or {}).get("resources") or spec.get("resources")
    if not given:
        return {}
    kept = {kind: given[kind] for kind in ("requests", "limits") if given.get(kind)}
    return {"resources": kept} | (
        {"allocatedResources": kept["requests"]} if "requests" in kept else {}
    )


def _from_record(record: ContainerRecord, runtime: str) -> Json:
    running = record.state.phase is ContainerPhase.RUNNING
    container_id = f"{runtime}://{record.container_id}" if record.container_id else ""
    status: Json = {
        "restartCount": record.restart_count,
        "ready": running if record.ready is None else record.ready,
        "started": running if record.started is None else record.started,
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
        return {"waiting": Waiting(reason=state.reason, message=state.message).as_json()}
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


def _begun(init: list[Json]) -> list[Json]:
    """Init containers up to the last that has any sign of a start, at least one as upstream."""
    for index in range(len(init) - 1, -1, -1):
        if "waiting" not in init[index]["state"] or "terminated" in init[index]["lastState"]:
            return init[: index + 1]
    return init[:1]


def _end(given: StatusSources, statuses: Sequence[Json], outcome: Outcome) -> None:
    """Containers nobody saw end; a pod's end is their end."""
    for status in statuses:
        if "terminated" in status["state"]:
            continue
        # Upstream says ContainerStatusUnknown where it knows no better; Slurm does know.
        terminated: Json = {
            "exitCode": 137,
            "reason": outcome.reason or "ContainerStatusUnknown",
            "message": outcome.message or _UNKNOWN_MESSAGE,
        }
        started = (status["state"].get("running") or {}).get("startedAt")
        if started:
            terminated["startedAt"] = started
        if given.ended_at_s is not None:
            terminated["finishedAt"] = rfc3339(given.ended_at_s)
        if status.get("containerID"):
            # It ran, and left a log, which is shown only of a container that has an id.
            terminated["containerID"] = status["containerID"]
        status |= {"state": {"terminated": terminated}, "ready": False, "started": False}
