"""Events about Pods, with upstream's reasons; repeated ones are counted, not repeated.

Source: client-go/tools/record. Events are best effort: a lost one never stops a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from hpk.model.record import ContainerEvent
from kubelet.api.apiserver import ApiError, ApiServer, Json, path
from kubelet.api.meta_time import rfc3339, rfc3339_now

log = logging.getLogger(__name__)

_REMEMBERED = 4096


class EventRecorder:
    """Queues events and writes them in the background."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._queue: asyncio.Queue[Json] = asyncio.Queue(maxsize=1000)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def normal(self, pod: Mapping[str, Any], reason: str, message: str) -> None:
        """Something that was to be expected."""
        self._put(pod, "Normal", reason, message)

    def warning(self, pod: Mapping[str, Any], reason: str, message: str) -> None:
        """Something the user should look at."""
        self._put(pod, "Warning", reason, message)

    def observed(self, pod: Mapping[str, Any], event: ContainerEvent, field_path: str) -> None:
        """What a supervisor saw, as often as it saw it; telling it twice changes nothing.

        :param field_path: of the container, ``spec.containers{NAME}``.
        """
        kind = "Warning" if event.is_warning else "Normal"
        made = _event(pod, kind, event.reason, event.message, event.container)
        made |= {
            "count": event.count,
            "firstTimestamp": rfc3339(event.first_at_s),
            "lastTimestamp": rfc3339(event.last_at_s),
        }
        made["involvedObject"]["fieldPath"] = field_path
        self._queue_event(made)

    def _put(self, pod: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        self._queue_event(_event(pod, kind, reason, message))

    def _queue_event(self, event: Json) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(event)

    async def run(self) -> None:
        """Write events as they come."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except ApiError as error:
                log.debug("event not written: %s", error)

    async def _write(self, event: Json) -> None:
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        collection = path("api", "v1", "namespaces", namespace, "events")
        is_observed = "fieldPath" in event["involvedObject"]
        count = event["count"] if is_observed else self._counts.get(name, 0) + 1
        is_known = name in self._counts
        self._counts[name] = count
        self._counts.move_to_end(name)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)
        if is_known:
            patch = {"count": count, "lastTimestamp": event["lastTimestamp"]}
            with contextlib.suppress(ApiError):
                await self._api.merge_patch(f"{collection}/{name}", patch)
                return
        try:
            await self._api.create(collection, event)
        except ApiError as error:
            if not error.is_conflict:
                raise
            patch = {"lastTimestamp": event["lastTimestamp"]}
            if is_observed:
                patch["count"] = count
            await self._api.merge_patch(f"{collection}/{name}", patch)


def _event(
    pod: Mapping[str, Any], kind: str, reason: str, message: str, container: str = ""
) -> Json:
    meta = pod["metadata"]
    now = rfc3339_now()
    about = "\n".join((meta["uid"], reason, message, *([container] if container else [])))
    key = hashlib.sha256(about.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta['name'][:200].rstrip('-.')}.{key}",
            "namespace": meta["namespace"],
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "reason": reason,
        "message": message[:1024],
        "type": kind,
        "source": {"component": "kubelet", "host": pod["spec"].get("nodeName", "")},
        "reportingComponent": "kubelet",
        "reportingInstance": pod["spec"].get("nodeName", ""),
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
