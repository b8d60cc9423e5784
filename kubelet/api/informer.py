"""One list and watch for all Pods bound to our virtual nodes.

List → watch → bookmarks → list again on 410 (client-go's reflector). A Pod that is missing from a
new list was deleted if the list is of the store that was seen before; else nobody knows why it is
missing (kubelet.api.store), and its job is kept.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from typing import Any, Protocol

from kubelet.api.apiserver import ApiError, ApiServer, Json, resource_version
from kubelet.api.store import StoreIdentity

log = logging.getLogger(__name__)

_PODS = "/api/v1/pods"
_BOUND = {"fieldSelector": "spec.nodeName!="}
_SHORT = 64
_PAGE = "500"
"""Pods in one answer: ten thousand are 54 MB of text."""


class PodHandler(Protocol):
    """Who hears of Pods. Calls come in order and must not block."""

    def pod_changed(self, pod: Json) -> None:
        """The Pod is new or has changed."""

    def pod_deleted(self, pod: Json) -> None:
        """The Pod's deletion was observed; ``pod`` is its last state."""

    def pods_listed(self, pods: list[Json], *, is_same_store: bool) -> None:
        """A whole list.

        :param is_same_store: whoever is not in it has been deleted; else it is missing for reasons
            unknown.
        """


class PodInformer:
    """Keeps a handler informed until it is cancelled."""

    def __init__(self, api: ApiServer, store: StoreIdentity, handler: PodHandler) -> None:
        self._api = api
        self._store = store
        self._handler = handler
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch for ever; every failure is followed by a pause and a new list."""
        pause_s = 0.2
        while True:
            try:
                version = await self._list()
                pause_s = 0.2
                while True:
                    started_s = time.monotonic()
                    version = await self._watch(version)
                    if time.monotonic() - started_s < 1:
                        await asyncio.sleep(1)
            except ApiError as error:
                if not error.is_gone:
                    log.warning("watch pods: %s", error)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311
            pause_s = min(pause_s * 2, 10)

    async def _list(self) -> str:
        pods: list[Json] = []
        params = {**_BOUND, "limit": _PAGE}
        while True:
            answer = await self._api.get(_PODS, params)
            pods += [_lean(pod) for pod in answer.get("items") or []]
            more = answer["metadata"].get("continue")
            if not more:
                break
            params["continue"] = str(more)
        is_same = await self._store.listed(resource_version(answer))
        self._handler.pods_listed(pods, is_same_store=is_same)
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        params = {
            **_BOUND,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(300, 600)),  # noqa: S311
        }
        async for event in self._api.watch(_PODS, params):
            pod = event["object"]
            version = str(pod["metadata"]["resourceVersion"])
            self._store.saw(resource_version(pod))
            if event["type"] in ("ADDED", "MODIFIED"):
                self._handler.pod_changed(_lean(pod))
            elif event["type"] == "DELETED":
                self._handler.pod_deleted(_lean(pod))
        return version


def _lean(pod: Json) -> Json:
    """The Pod without what nobody here reads, and with its words shared among all Pods.

    Who wrote which field is half of a Pod, and of the rest most words are the same in each: 7 KiB
    are left of 32.
    """
    pod["metadata"].pop("managedFields", None)
    shared: Json = _share(pod)
    return shared


def _share(value: Any) -> Any:
    if isinstance(value, dict):
        return {sys.intern(key): _share(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_share(item) for item in value]
    return sys.intern(value) if isinstance(value, str) and len(value) < _SHORT else value
