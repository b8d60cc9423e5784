"""How far a pod is, from its containers' statuses. Pure.

Source: pkg/kubelet/kubelet_pods.go, getPhase.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpk.model.plan import RestartPolicy
from kubelet.api.apiserver import Json

TERMINAL = ("Succeeded", "Failed")
"""Phases that nothing follows."""
Statuses = Mapping[str, Json]
"""Container statuses by the container's name."""


def pod_phase(spec: Mapping[str, Any], statuses: Statuses) -> str:
    """The phase of a pod of whose end nobody has spoken: ``Pending`` or ``Running``.

    Where every container has ended the supervisor's finished record, a moment from here, decides
    between ``Succeeded`` and ``Failed``, which can never be taken back.
    """
    if _init_failed(spec, statuses):
        return "Running" if any_started(spec, statuses) else "Pending"
    if _init_pending(spec, statuses):
        return "Pending"
    running = stopped = 0
    for container in spec["containers"]:
        state, last = _states(statuses, container["name"])
        if "running" in state:
            running += 1
        elif "terminated" in state or "terminated" in last:
            stopped += 1
        else:
            return "Pending"
    for container in sidecars(spec):
        state, last = _states(statuses, container["name"])
        if "running" in state:
            running += 1
        elif "terminated" not in state and "terminated" not in last:
            return "Pending"
    return "Running" if running or stopped else "Pending"


def any_started(spec: Mapping[str, Any], statuses: Statuses) -> bool:
    """Whether a regular container runs, or has run."""
    return any(
        "running" in state or "terminated" in state or "terminated" in last
        for state, last in (_states(statuses, c["name"]) for c in spec["containers"])
    )


def has_initialized(spec: Mapping[str, Any], statuses: Statuses) -> bool:
    """Whether the init containers have done their work (status_manager.go, hasPodInitialized)."""
    init_containers = spec.get("initContainers") or []
    if not init_containers or any_started(spec, statuses):
        return True
    final = init_containers[-1]
    state, last = _states(statuses, final["name"])
    if is_sidecar(final):
        return "running" in state
    return any(
        "terminated" in item and item["terminated"]["exitCode"] == 0 for item in (state, last)
    )


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Whether an init container goes on beside the others."""
    return container.get("restartPolicy") == "Always"


def sidecars(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The init containers that do."""
    return (item for item in spec.get("initContainers") or [] if is_sidecar(item))


def _regular_init(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (item for item in spec.get("initContainers") or [] if not is_sidecar(item))


def _init_failed(spec: Mapping[str, Any], statuses: Statuses) -> bool:
    """Whether an init container failed that is not to be started again."""
    if RestartPolicy(spec.get("restartPolicy") or "Always") is not RestartPolicy.NEVER:
        return False
    for container in _regular_init(spec):
        state, last = _states(statuses, container["name"])
        ended = state.get("terminated") or ("waiting" in state and last.get("terminated"))
        if ended and ended["exitCode"] != 0:
            return True
    return False


def _init_pending(spec: Mapping[str, Any], statuses: Statuses) -> bool:
    for container in _regular_init(spec):
        state, last = _states(statuses, container["name"])
        if "terminated" in state:
            continue
        if "running" in state or "terminated" not in last or last["terminated"]["exitCode"] == 0:
            return True
    if any_started(spec, statuses):
        return False
    return any(
        "running" not in state and "terminated" not in state and "terminated" not in last
        for state, last in (_states(statuses, c["name"]) for c in sidecars(spec))
    )


def _states(statuses: Statuses, name: str) -> tuple[Json, Json]:
    status = statuses.get(name) or {}
    return status.get("state") or {}, status.get("lastState") or {}
