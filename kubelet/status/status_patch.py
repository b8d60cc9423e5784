"""What to send so that a Pod's status is what it should be. Pure.

A strategic merge patch of what is ours alone: other writers' conditions (readiness gates,
DisruptionTarget) stay, whether or not we have seen them. Sources: pkg/util/pod/pod.go,
pkg/kubelet/status/status_manager.go (needsReconcile), k8s.io/api/core/v1 (patchMergeKey).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubelet.api.apiserver import Json
from kubelet.status.pod_conditions import OUR_CONDITIONS

_FIELDS = (
    "phase",
    "startTime",
    "observedGeneration",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "podIP",
)
_ADDRESSES = ("hostIPs", "podIPs")
_TEXTS = ("reason", "message")


def plan_status_patch(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> Json:
    """The ``status`` of the patch; empty where there is nothing to say.

    :param base: the status that the API server has, as far as is known.
    :param wanted: the status that it should have; what it does not name stays, but for a reason and
        a message.
    """
    patch: Json = {
        name: wanted[name]
        for name in _FIELDS
        if name in wanted and _differ(base.get(name), wanted[name])
    }
    for name in _TEXTS:
        if (base.get(name) or "") != (wanted.get(name) or ""):
            patch[name] = wanted.get(name) or None
    for name in _ADDRESSES:
        if name in wanted and _differ(base.get(name), wanted[name]):
            patch[name] = _addresses(base.get(name) or (), wanted[name])
    conditions = _conditions(base.get("conditions") or (), wanted.get("conditions") or ())
    if conditions:
        patch["conditions"] = conditions
    return patch


def _differ(one: Any, other: Any) -> bool:
    return bool(one != other and prune(one) != prune(other))


def prune(value: Any) -> Any:
    """The value without what JSON may leave out: nulls, empty texts, objects and lists."""
    if isinstance(value, dict):
        pruned = {key: prune(item) for key, item in value.items()}
        return {k: v for k, v in pruned.items() if v is not None and v not in ("", {}, [])}
    if isinstance(value, list):
        return [prune(item) for item in value]
    return value


def _conditions(base: Sequence[Json], wanted: Sequence[Json]) -> list[Json]:
    """Of our types: those that differ, and those that are no more."""
    there = {c.get("type"): c for c in base if c.get("type") in OUR_CONDITIONS}
    ours = {c["type"]: c for c in wanted if c["type"] in OUR_CONDITIONS}
    patch = []
    for kind, condition in ours.items():
        before = there.get(kind, {})
        if _differ(before, condition):
            # Fields merge too: one that is no more has to be said so.
            gone = {name: None for name in _TEXTS if before.get(name) and not condition.get(name)}
            patch.append({**condition, **gone})
    patch += [{"$patch": "delete", "type": kind} for kind in there if kind not in ours]
    return patch


def _addresses(base: Sequence[Json], wanted: Sequence[Json]) -> list[Json]:
    kept = {item["ip"] for item in wanted}
    gone = [item["ip"] for item in base if item.get("ip") and item["ip"] not in kept]
    return [*wanted, *({"$patch": "delete", "ip": ip} for ip in gone)]
