"""An API server of Pods that speaks real HTTP, and merges a status as the real one does.

Only what tests of the kubelet need of it: a Pod's status subresource, events, and who changed what.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from kubelet.api.apiserver import ApiServer

_MERGE_KEYS = {"conditions": "type", "hostIPs": "ip", "podIPs": "ip"}


@dataclass
class PodApi:
    """``pods`` by name, ``events`` by name; ``patches`` are the statuses that were sent,
    ``deletions`` the names, ``event_writes`` how often an Event was made or changed. While ``hold``
    is not set, no status is answered; ``held`` are waiting."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    patches: list[dict[str, Any]] = field(default_factory=list)
    deletions: list[str] = field(default_factory=list)
    event_writes: int = 0
    version: int = 100
    store: str = "store-1"
    store_refusal: int = 403
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    held: int = 0

    def __post_init__(self) -> None:
        self.hold.set()

    def add(self, name: str, status: dict[str, Any]) -> dict[str, Any]:
        """A Pod, as a watch shows it."""
        self.pods[name] = {
            "metadata": {"namespace": "default", "name": name, "uid": f"uid-of-{name}"},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
            "status": status,
        }
        return self.change(name)

    def change(self, name: str, *conditions: dict[str, Any], **status: Any) -> dict[str, Any]:
        """Somebody changes a Pod's status; what a watch shows then."""
        pod = self.pods[name]
        self._merge(pod["status"], {**status, "conditions": list(conditions)})
        return self.watched(name)

    def watched(self, name: str) -> dict[str, Any]:
        """The Pod, as a watch shows it now."""
        self.version += 1
        self.pods[name]["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.pods[name])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/pods":
            return await (self._watch(request) if "watch" in request.query else self._list(request))
        parts = request.path.strip("/").split("/")
        if parts == ["api", "v1", "namespaces", "kube-system"]:
            if not self.store:
                return web.json_response({"reason": "Forbidden"}, status=self.store_refusal)
            return web.json_response({"metadata": {"uid": self.store}})
        if parts[-1] == "status" and request.method == "PATCH":
            assert request.content_type == "application/strategic-merge-patch+json"
            self.held += 1
            await self.hold.wait()
            self.held -= 1
            return self._patch_status(parts[-2], await request.json())
        if parts[-2] == "pods" and request.method == "DELETE":
            self.deletions.append(parts[-1])
            return web.json_response({})
        if "events" in parts:
            return self._event(request.method, parts, await request.json())
        return web.json_response({"reason": "NotFound", "message": request.path}, status=404)

    async def _list(self, request: web.Request) -> web.Response:
        """Three at a time, whatever was asked for."""
        begin = int(request.query.get("continue", "0"))
        names = list(self.pods)
        more = str(begin + 3) if begin + 3 < len(names) else ""
        items = [self.pods[name] for name in names[begin : begin + 3]]
        metadata = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"metadata": metadata, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """One Pod comes and goes."""
        assert request.query["resourceVersion"] == str(self.version)
        response = web.StreamResponse()
        await response.prepare(request)
        for kind in ("ADDED", "DELETED"):
            event = {"type": kind, "object": self.add("late", {"phase": "Pending"})}
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def _patch_status(self, name: str, body: dict[str, Any]) -> web.Response:
        pod = self.pods.get(name)
        if pod is None:
            return web.json_response({"reason": "NotFound"}, status=404)
        if body["metadata"]["uid"] != pod["metadata"]["uid"]:
            return web.json_response({"reason": "Conflict"}, status=409)
        self.patches.append(body["status"])
        self._merge(pod["status"], body["status"])
        return web.json_response(self.watched(name))

    def _event(self, method: str, parts: list[str], body: dict[str, Any]) -> web.Response:
        self.event_writes += 1
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.events:
                return web.json_response({"reason": "AlreadyExists"}, status=409)
            self.events[name] = body
            return web.json_response(body)
        if parts[-1] not in self.events:
            return web.json_response({"reason": "NotFound"}, status=404)
        self.events[parts[-1]] |= body
        return web.json_response(self.events[parts[-1]])

    def _merge(self, old: dict[str, Any], patch: dict[str, Any]) -> None:
        """Strategic merge (apimachinery, pkg/util/strategicpatch)."""
        for name, value in patch.items():
            key = _MERGE_KEYS.get(name)
            if value is None:
                old.pop(name, None)
            elif key is not None:
                old[name] = self._merge_list(old.get(name) or [], value, key)
            else:
                old[name] = value

    def _merge_list(
        self, old: list[dict[str, Any]], patch: list[dict[str, Any]], key: str
    ) -> list[dict[str, Any]]:
        merged = {item[key]: dict(item) for item in old}
        for item in patch:
            if item.get("$patch") == "delete":
                merged.pop(item[key], None)
                continue
            self._merge(merged.setdefault(item[key], {}), item)
        return list(merged.values())


@asynccontextmanager
async def serve_pods(directory: Path) -> AsyncIterator[tuple[PodApi, ApiServer]]:
    """The server, and a connection to it."""
    made = PodApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
        ],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    api = await ApiServer.connect(kubeconfig)
    try:
        yield made, api
    finally:
        await api.close()
        await runner.cleanup()
