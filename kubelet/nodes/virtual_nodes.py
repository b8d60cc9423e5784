"""Keeps a Node for each Slurm partition registered, and the lease that says it lives.

What a Node says is kubelet.nodes.node's. Source: component-helpers/apimachinery/lease.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hpk.model.errors import HpkError
from hpk.model.job import Partition
from hpk.model.settings import KubeletSettings
from hpk.planning.job.site import prefer_partition
from hpk.slurm.base import SlurmBackend
from kubelet.api.apiserver import ApiError, ApiServer, Json, path
from kubelet.api.meta_time import rfc3339_now
from kubelet.nodes.node import (
    TAINT,
    NodeHealth,
    merge_conditions,
    node_object,
    plan_node_names,
)

log = logging.getLogger(__name__)

_LEASE_DURATION_S = 40
_LEASE_RENEW_S = 10
_PARTITIONS_AGAIN_S = 60.0
_FAILURE_PAUSE_S = 10.0
_FIRST_ANSWER_PAUSE_S = 2.0


class VirtualNodes:
    """The Nodes of all partitions this user may submit to, by name."""

    def __init__(
        self,
        *,
        registrar: NodeRegistrar,
        slurm: SlurmBackend,
        default_partition: str,
        health: Callable[[str, str], NodeHealth],
        first_known: Callable[[], None],
    ) -> None:
        """
        :param default_partition: whose node is the default one; "" for Slurm's default.
        :param health: how the kubelet and what it works with are, given Slurm's version.
        :param first_known: called when Slurm has named partitions for the first time.
        """
        self._registrar = registrar
        self._slurm = slurm
        self._default_partition = default_partition
        self._health = health
        self._first_known = first_known
        self._partitions: dict[str, Partition] = {}
        self._version = ""

    def names(self) -> tuple[str, ...]:
        """The nodes' names; none before Slurm has answered."""
        return tuple(self._partitions)

    def partition(self, node: str) -> Partition | None:
        """The partition a node stands for. Ask anew each time: partitions come and change."""
        return self._partitions.get(node)

    async def keep_registered(self) -> None:
        """Bring the Nodes up to date now and then, until cancelled."""
        while True:
            try:
                await self._register()
                pause_s = _PARTITIONS_AGAIN_S
            except (HpkError, OSError) as error:
                log.warning("nodes not registered: %s", error)
                pause_s = _FAILURE_PAUSE_S if self._partitions else _FIRST_ANSWER_PAUSE_S
            await asyncio.sleep(pause_s)

    async def keep_leases(self) -> None:
        """Renew the leases until cancelled."""
        while True:
            for name in self.names():
                try:
                    await self._registrar.renew_lease(name)
                except ApiError as error:
                    log.warning("lease of %s not renewed: %s", name, error)
            await asyncio.sleep(_LEASE_RENEW_S if self._partitions else 0.2)

    async def _register(self) -> None:
        nodes, problem = self._partitions, ""
        try:
            self._version = await self._slurm.version()
            partitions = await self._slurm.partitions()
            nodes = plan_node_names(prefer_partition(partitions, self._default_partition))
        except HpkError as error:
            if not nodes:
                raise
            problem = str(error)  # the nodes stay as they were, and say so
        health = self._health(self._version, problem)
        for name, partition in nodes.items():
            await self._registrar.register(name, partition, health)
            if name not in self._partitions:
                log.info("node registered node=%s partition=%s", name, partition.name)
        first = not self._partitions
        self._partitions = nodes
        if first:
            self._first_known()


class NodeRegistrar:
    """Writes Nodes and leases."""

    def __init__(self, api: ApiServer, settings: KubeletSettings) -> None:
        self._api = api
        self._settings = settings

    async def register(self, name: str, partition: Partition, health: NodeHealth) -> None:
        """Create the Node, or bring labels, taints and status up to date."""
        wanted = node_object(name, partition, self._settings, health, rfc3339_now())
        url = path("api", "v1", "nodes", name)
        try:
            existing = await self._api.get(url)
        except ApiError as error:
            if not error.is_not_found:
                raise
            existing = await self._api.create("/api/v1/nodes", wanted)
        patch: Json = {"metadata": {"labels": wanted["metadata"]["labels"]}}
        others = [t for t in existing["spec"].get("taints") or [] if t.get("key") != TAINT]
        taints = others + wanted["spec"]["taints"]
        if taints != (existing["spec"].get("taints") or []):
            patch["spec"] = {"taints": taints}
        await self._api.merge_patch(url, patch)
        status: dict[str, Any] = wanted["status"]
        old = (existing.get("status") or {}).get("conditions") or []
        status["conditions"] = merge_conditions(old, status["conditions"])
        # Conditions merge by their type: those of others stay.
        await self._api.strategic_patch(f"{url}/status", {"status": status})

    async def renew_lease(self, name: str) -> None:
        """Renew the Node's lease, creating it where there is none."""
        collection = path(
            "apis", "coordination.k8s.io", "v1", "namespaces", "kube-node-lease", "leases"
        )
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_DURATION_S,
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
