"""What the Node that stands for a Slurm partition says. Pure.

Sources: pkg/kubelet/kubelet_node_status.go, pkg/kubelet/nodestatus/setters.go.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hpk import __version__
from hpk.model.job import Partition
from hpk.model.settings import KubeletSettings
from kubelet.api.apiserver import Json

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
KUBERNETES_VERSION = "v1.37.2"
TAINT = "hpk.io/partition"
"""The key of the one taint that is ours; the others on the Node are somebody's."""

_NAME = re.compile(r"[^a-z0-9-]+")
_LABEL_VALUE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeHealth:
    """What the Node's conditions are made of; a problem is "" where there is none.

    :param slurm_version: ``22.05.8``.
    :param slurm_problem: why Slurm does not answer.
    :param files_problem: why the shared file system does not.
    :param descriptors_problem: that the kubelet has few left.
    """

    slurm_version: str
    slurm_problem: str = ""
    files_problem: str = ""
    descriptors_problem: str = ""


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
    name: str, partition: Partition, settings: KubeletSettings, health: NodeHealth, now: str
) -> Json:
    """The Node for a partition, metadata, spec and status."""
    taints = []
    if not partition.is_default:
        taints.append({"key": TAINT, "value": partition.name, "effect": "PreferNoSchedule"})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": node_labels(name, partition)},
        "spec": {"taints": taints},
        "status": _status(name, partition, settings, health, now),
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
    name: str, partition: Partition, settings: KubeletSettings, health: NodeHealth, now: str
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
        # The API server hands a client's WebSocket on instead of translating it into SPDY.
        "declaredFeatures": ["ExtendWebSocketsToKubelet"],
        "nodeInfo": {
            "architecture": _ARCHITECTURE,
            "bootID": "",
            "containerRuntimeVersion": "slurm://" + health.slurm_version,
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": f"{KUBERNETES_VERSION}-hpk.{__version__}",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": f"Slurm {health.slurm_version}",
            "systemUUID": "",
        },
        "conditions": _conditions(partition, health, now),
    }


def _conditions(partition: Partition, health: NodeHealth, now: str) -> list[Json]:
    def condition(kind: str, status: bool, reason: str, message: str) -> Json:
        return {
            "type": kind,
            "status": "True" if status else "False",
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }

    up = partition.is_up and not health.slurm_problem
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
            _slurm_reason(partition, health),
            health.slurm_problem
            or f"partition {partition.name} is {'up' if partition.is_up else 'down'}",
        ),
        condition(
            "SharedFilesAvailable",
            not health.files_problem,
            "SharedFilesStalled" if health.files_problem else "SharedFilesAnswer",
            health.files_problem or "HPK's home answers",
        ),
        condition(
            "DescriptorPressure",
            bool(health.descriptors_problem),
            "FewDescriptorsLeft" if health.descriptors_problem else "DescriptorsLeft",
            health.descriptors_problem or "the kubelet has file descriptors left",
        ),
    ]


def _slurm_reason(partition: Partition, health: NodeHealth) -> str:
    if health.slurm_problem:
        return "SlurmUnavailable"
    return "PartitionUp" if partition.is_up else "PartitionDown"


def merge_conditions(old: Sequence[Json], new: Sequence[Json]) -> list[Json]:
    """New conditions, with the old transition time where the status is the same."""
    times = {(c.get("type"), c.get("status")): c.get("lastTransitionTime") for c in old}
    merged = []
    for item in new:
        kept = times.get((item["type"], item["status"]))
        merged.append({**item, "lastTransitionTime": kept or item["lastTransitionTime"]})
    return merged
