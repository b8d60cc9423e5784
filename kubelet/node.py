"""Virtual nodes: one Node for each Slurm partition, and the lease that says it lives.

``plan_*`` and ``node_object`` are pure. Sources: pkg/kubelet/kubelet_node_status.go,
pkg/kubelet/nodestatus/setters.go, component-helpers/node/lease.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from hpk import __version__
from hpk.model.job import Partition
from hpk.model.settings import KubeletSettings
from kubelet.apiserver import ApiError, ApiServer, Json, path

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
KUBERNETES_VERSION = "v1.37.2"
LEASE_DURATION_S = 40
LEASE_RENEW_S = 10

_NAME = re.compile(r"[^a-z0-9-]+")
_LABEL_VALUE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmHealth:
    """Whether Slurm answers, for the Node's conditions."""

    version: str
    problem: str = ""


def plan_node_names(partitions: Sequence[Partition]) -> dict[str, Partition]:
    """A valid and unique Node name for each partition, stable under reordering."""
    names: dict[str, Partition] = {}
    for partition in sorted(partitions, key=lambda p: p.name):
        name = _NAME.sub("-", partition.name.lower()).strip("-")[:50] or "partition"
        if name != partition.name or name in names:
            name = f"{name}-{hashlib.sha256(partition.name.encode()).hexdigest()[:6]}"
        names[name] = partition
    return names


def node_object(
    name: str, partition: Partition, settings: KubeletSettings, slurm: SlurmHealth, now: str
) -> Json:
    """The Node for a partition, metadata, spec and status."""
    taints = []
    if not partition.is_default:
        taints.append(
            {"key": "hpk.io/partition", "value": partition.name, "effect": "PreferNoSchedule"}
        )
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": node_labels(name, partition)},
        "spec": {"taints": taints},
        "status": _status(name, partition, settings, slurm, now),
    }


def node_labels(name: str, partition: Partition) -> dict[str, str]:
    """What a nodeSelector can choose the partition's Node by."""
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _ARCHITECTURE,
        "beta.kubernetes.io/os": "linux",
        "type": "virtual-kubelet",
        "hpk.io/partition": _label_value(partition.name),
    }
    for feature in partition.features:
        labels[f"feature.hpk.io/{_label_value(feature)}"] = "true"
    return labels


def _label_value(text: str) -> str:
    return _LABEL_VALUE.sub("-", text)[:63].strip("-_.")


def _status(
    name: str, partition: Partition, settings: KubeletSettings, slurm: SlurmHealth, now: str
) -> Json:
    capacity = {
        "cpu": str(partition.total_cpus),
        "memory": f"{partition.total_memory_bytes // 1024}Ki",
        "pods": str(max(110, partition.total_cpus)),
    }
    if partition.gpus:
        capacity["nvidia.com/gpu"] = str(partition.gpus)
    return {
        "capacity": capacity,
        "allocatable": dict(capacity),
        "addresses": [
            {"type": "InternalIP", "address": settings.address},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "nodeInfo": {
            "architecture": _ARCHITECTURE,
            "bootID": "",
            "containerRuntimeVersion": "slurm://" + slurm.version,
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": f"{KUBERNETES_VERSION}-hpk.{__version__}",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": f"Slurm {slurm.version}",
            "systemUUID": "",
        },
        "conditions": _conditions(partition, slurm, now),
    }


def _conditions(partition: Partition, slurm: SlurmHealth, now: str) -> list[Json]:
    def condition(kind: str, status: bool, reason: str, message: str) -> Json:
        return {
            "type": kind,
            "status": "True" if status else "False",
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }

    up = partition.is_up and not slurm.problem
    return [
        condition("MemoryPressure", False, "SlurmEnforcesMemory", "Slurm limits each job"),
        condition("DiskPressure", False, "NotWatched", "images and logs are the user's own"),
        condition("PIDPressure", False, "NotWatched", "Slurm limits each job"),
        # Ready speaks of this kubelet: were it False while slurmctld restarts, the node
        # lifecycle controller would evict pods whose jobs run on untouched.
        condition("Ready", True, "KubeletReady", "HPK kubelet is posting ready status"),
        condition(
            "SlurmAvailable",
            up,
            "PartitionUp" if up else "SlurmUnavailable",
            slurm.problem or f"partition {partition.name} is {'up' if partition.is_up else 'down'}",
        ),
    ]


def merge_conditions(old: Sequence[Json], new: Sequence[Json]) -> list[Json]:
    """New conditions, with the old transition time where the status is the same."""
    times = {(c.get("type"), c.get("status")): c.get("lastTransitionTime") for c in old}
    merged = []
    for item in new:
        kept = times.get((item["type"], item["status"]))
        merged.append({**item, "lastTransitionTime": kept or item["lastTransitionTime"]})
    return merged


def timestamp(at: datetime | None = None) -> str:
    """RFC 3339 in whole seconds, as ``metav1.Time``."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


class NodeRegistrar:
    """Writes Nodes and leases."""

    def __init__(self, api: ApiServer, settings: KubeletSettings) -> None:
        self._api = api
        self._settings = settings

    async def register(self, name: str, partition: Partition, slurm: SlurmHealth) -> None:
        """Create the Node, or bring labels, taints and status up to date."""
        wanted = node_object(name, partition, self._settings, slurm, timestamp())
        url = path("api", "v1", "nodes", name)
        try:
            existing = await self._api.get(url)
        except ApiError as error:
            if not error.is_not_found:
                raise
            existing = await self._api.create("/api/v1/nodes", wanted)
        patch: Json = {"metadata": {"labels": wanted["metadata"]["labels"]}}
        ours = [t for t in existing["spec"].get("taints") or [] if t.get("key") != _OUR_TAINT]
        taints = ours + wanted["spec"]["taints"]
        if taints != (existing["spec"].get("taints") or []):
            patch["spec"] = {"taints": taints}
        await self._api.merge_patch(url, patch)
        status: dict[str, Any] = wanted["status"]
        old = (existing.get("status") or {}).get("conditions") or []
        status["conditions"] = merge_conditions(old, status["conditions"])
        await self._api.merge_patch(f"{url}/status", {"status": status})

    async def renew_lease(self, name: str) -> None:
        """Renew the Node's lease, creating it where there is none."""
        collection = path(
            "apis", "coordination.k8s.io", "v1", "namespaces", "kube-node-lease", "leases"
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": now,
        }
        try:
            await self._api.merge_patch(f"{collection}/{name}", {"spec": spec})
        except ApiError as error:
            if not error.is_not_found:
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": spec,
            }
            await self._api.create(collection, lease)


_OUR_TAINT = "hpk.io/partition"
