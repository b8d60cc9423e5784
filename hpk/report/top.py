"""What `hpk top` shows: virtual nodes, and Pods beside their jobs with what they really use.

`node_rows` and `usage_of_pods` are pure; HomeSource collects: a few requests to the API server and
one squeue. Where metrics-server does not answer, use is not known and everything else is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpk.model.errors import HpkError, ParseError
from hpk.planning.base.quantity import parse_quantity
from hpk.report.cluster import Cluster, Json
from hpk.report.ps import PsRow, read_rows
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

_LOG_LINES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What processes use now, as metrics-server has it."""

    cpus: float
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A virtual node: a partition, with the Pods that are its."""

    name: str
    ready: bool
    cpus: float
    memory_bytes: int
    running: int
    waiting: int
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything at one moment.

    :param usage: by namespace and name of the Pod; of those that metrics-server knows.
    """

    nodes: tuple[NodeRow, ...]
    pods: tuple[PsRow, ...]
    usage: Mapping[tuple[str, str], Usage] = field(default_factory=dict)

    @property
    def cpu_hours(self) -> float:
        """What the jobs shown have cost so far."""
        return sum(row.cpu_hours or 0 for row in self.pods)

    @property
    def gpu_hours(self) -> float:
        """Of GPUs, likewise."""
        return sum(row.gpu_hours or 0 for row in self.pods)


def node_rows(
    nodes: Sequence[Json], pods: Sequence[Json], usage: Mapping[str, Usage]
) -> tuple[NodeRow, ...]:
    """One row for each Node, by name."""
    phases: dict[str, list[str]] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        if node:
            phases.setdefault(node, []).append((pod.get("status") or {}).get("phase") or "Pending")
    found = []
    for node in nodes:
        name, status = node["metadata"]["name"], node.get("status") or {}
        capacity, here = status.get("capacity") or {}, phases.get(name, [])
        found.append(
            NodeRow(
                name=name,
                ready=any(
                    one.get("type") == "Ready" and one.get("status") == "True"
                    for one in status.get("conditions") or ()
                ),
                cpus=float(_amount(capacity.get("cpu"))),
                memory_bytes=int(_amount(capacity.get("memory"))),
                running=here.count("Running"),
                waiting=here.count("Pending"),
                usage=usage.get(name),
            )
        )
    return tuple(sorted(found, key=lambda row: row.name))


def usage_of_pods(items: Sequence[Json]) -> dict[tuple[str, str], Usage]:
    """The sums of PodMetrics' containers."""
    found = {}
    for item in items:
        meta, used = item["metadata"], [one.get("usage") for one in item.get("containers") or ()]
        found[meta["namespace"], meta["name"]] = _sum(used)
    return found


def usage_of_nodes(items: Sequence[Json]) -> dict[str, Usage]:
    """NodeMetrics by name."""
    return {item["metadata"]["name"]: _sum([item.get("usage")]) for item in items}


def _sum(used: Sequence[Json | None]) -> Usage:
    return Usage(
        cpus=float(sum(_amount((one or {}).get("cpu")) for one in used)),
        memory_bytes=int(sum(_amount((one or {}).get("memory")) for one in used)),
    )


def _amount(text: object) -> float:
    try:
        return float(parse_quantity(text))
    except ParseError:
        return 0.0


class HomeSource:
    """Fulfils hpk.screen.app.Source for a home's control plane.

    :param namespace: None for all.
    """

    def __init__(self, paths: HpkPaths, namespace: str | None) -> None:
        self._paths = paths
        self._namespace = namespace
        self._backend = CliBackend()

    async def picture(self) -> Picture:
        """See Source.picture."""
        rows, (nodes, pods, of_pods, of_nodes) = await asyncio.gather(
            read_rows(self._paths, self._backend, self._namespace),
            asyncio.to_thread(lambda: _ask(Cluster(self._paths), self._namespace)),
        )
        return Picture(
            nodes=node_rows(nodes, pods, usage_of_nodes(of_nodes)),
            pods=rows,
            usage=usage_of_pods(of_pods),
        )

    def log(self, namespace: str, pod: str) -> str:
        """See Source.log."""
        cluster = Cluster(self._paths)
        found = cluster.pod(namespace, pod)
        if found is None:
            return "the Pod is gone"
        parts = []
        names = [one["name"] for one in found["spec"]["containers"]]
        for name in names:
            try:
                text = cluster.log(found, name, tail=_LOG_LINES)
            except HpkError as error:
                text = f"! {error}\n"
            parts.append(f"── {name} ──\n{text}" if len(names) > 1 else text)
        return "".join(parts)

    def delete(self, namespace: str, pod: str) -> None:
        """See Source.delete."""
        cluster = Cluster(self._paths)
        found = cluster.pod(namespace, pod)
        if found is not None:
            cluster.delete(found)


def _ask(
    cluster: Cluster, namespace: str | None
) -> tuple[list[Json], list[Json], list[Json], list[Json]]:
    nodes = cluster.nodes()
    pods = [item.pod for item in cluster.pods(None)]
    try:
        return nodes, pods, cluster.pod_metrics(namespace), cluster.node_metrics()
    except HpkError:
        return nodes, pods, [], []
