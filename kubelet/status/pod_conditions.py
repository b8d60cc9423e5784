"""A Pod's conditions. Pure. Source: pkg/kubelet/status/generate.go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubelet.api.apiserver import Json
from kubelet.status.container_statuses import Waiting
from kubelet.status.pod_phase import TERMINAL, any_started, is_sidecar, sidecars

ADMITTED = "hpk.io/Admitted"
"""False, with the reason, while a pod waits because it cannot run here as things are."""
RESIZE_PENDING = "PodResizePending"
OUR_CONDITIONS = frozenset(
    {
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        ADMITTED,
        RESIZE_PENDING,
    }
)
"""Types of the conditions a kubelet writes; others belong to others."""


def pod_conditions(
    pod: Mapping[str, Any],
    phase: str,
    statuses: Mapping[str, Json],
    *,
    has_sandbox: bool,
    refusal: Waiting | None,
    now: str,
) -> list[Json]:
    """The kubelet's conditions, after those of other writers, which stay as they are.

    :param statuses: of all containers, by name.
    :param refusal: why it cannot run here as things are, None where it can.
    :param now: RFC 3339.
    """
    ready, not_ready = _readiness(pod["spec"], phase, statuses)
    old = list((pod.get("status") or {}).get("conditions") or [])
    kept = [c for c in old if c.get("type") not in OUR_CONDITIONS]
    gates = _closed_gates(pod["spec"], kept) if ready else {}
    ours: list[Json] = [
        {
            "type": "PodReadyToStartContainers",
            "status": _bool(has_sandbox and phase not in TERMINAL),
        },
        _initialized(pod["spec"], phase, statuses),
        {"type": "Ready", "status": _bool(ready and not gates), **not_ready, **gates},
        {"type": "ContainersReady", "status": _bool(ready), **not_ready},
    ]
    if refusal is not None:
        ours.append({"type": ADMITTED, "status": "False", **refusal.as_json()})
    if phase not in TERMINAL:
        ours += _resize(pod["spec"], statuses)
    generation = pod["metadata"].get("generation")
    return kept + [_with_transition(c, old, now, generation) for c in ours]


def _resize(spec: Mapping[str, Any], statuses: Mapping[str, Json]) -> list[Json]:
    """Whether somebody has asked for other resources than the job was submitted with.

    Source: pkg/kubelet/allocation (Infeasible: a resize that can never be granted).
    """
    asked = [
        container["name"]
        for container in (*(spec.get("initContainers") or []), *spec["containers"])
        if "resources" in statuses[container["name"]]
        and _amounts(statuses[container["name"]]["resources"])
        != _amounts(container.get("resources") or {})
    ]
    if not asked:
        return []
    listed = " ".join(asked)
    message = f"a Slurm job keeps the resources it was submitted with; asked for: [{listed}]"
    return [{"type": RESIZE_PENDING, "status": "True", "reason": "Infeasible", "message": message}]


def _amounts(resources: Mapping[str, Any]) -> Json:
    return {kind: resources.get(kind) or {} for kind in ("requests", "limits")}


def _initialized(spec: Mapping[str, Any], phase: str, statuses: Mapping[str, Json]) -> Json:
    condition = {"type": "Initialized", "status": "True"}
    if phase == "Succeeded":
        return condition | {"reason": "PodCompleted"}
    incomplete = [
        c["name"]
        for c in spec.get("initContainers") or []
        if not statuses[c["name"]]["started" if is_sidecar(c) else "ready"]
    ]
    if not incomplete or any_started(spec, statuses):
        return condition
    listed = " ".join(incomplete)
    return {
        "type": "Initialized",
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": f"containers with incomplete status: [{listed}]",
    }


def _readiness(
    spec: Mapping[str, Any], phase: str, statuses: Mapping[str, Json]
) -> tuple[bool, Json]:
    containers = [*sidecars(spec), *spec["containers"]]
    names_not_ready = [c["name"] for c in containers if not statuses[c["name"]]["ready"]]
    if phase == "Succeeded":
        return False, {"reason": "PodCompleted"}
    if phase == "Failed":
        return False, {"reason": "PodFailed"}
    if not names_not_ready:
        return True, {}
    listed = " ".join(names_not_ready)
    return False, {
        "reason": "ContainersNotReady",
        "message": f"containers with unready status: [{listed}]",
    }


def _closed_gates(spec: Mapping[str, Any], conditions: Sequence[Json]) -> Json:
    """What ``readinessGates`` still wait for; nothing where they do not."""
    by_type = {condition.get("type"): condition.get("status") for condition in conditions}
    messages = []
    for gate in spec.get("readinessGates") or []:
        kind = gate["conditionType"]
        if kind not in by_type:
            messages.append(
                f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            )
        elif by_type[kind] != "True":
            messages.append(
                f'the status of pod readiness gate "{kind}" is not "True", but {by_type[kind]}'
            )
    if not messages:
        return {}
    return {"reason": "ReadinessGatesNotReady", "message": ", ".join(messages)}


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
