"""Events about Pods, with upstream's reasons; repeated ones are counted, not repeated.

Each Pod may say so much at once and then one thing in five minutes, as upstream has it; so no pod
that crashes in a loop pushes out what others have to say. Events are best effort: a lost one never
stops a pod. Source: client-go/tools/record, events_cache.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpk.model.record import ContainerEvent
from kubelet.api.apiserver import ApiError, ApiServer, Json, path
from kubelet.api.meta_time import rfc3339, rfc3339_now

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_MOST_WAITING = 20_000
_WRITERS = 4
BURST = 25
_REFILL_S = 300.0


@dataclass(slots=True)
class _Bucket:
    """How much a Pod may still say. ``at_s`` is monotonic."""

    left: float
    at_s: float


class EventRecorder:
    """Queues events and writes them in the background.

    One that waits already is brought up to date where it stands.
    """

    def __init__(self, api: ApiServer, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock_s = clock_s
        self._waiting: OrderedDict[str, Json] = OrderedDict()
        self._writing: set[str] = set()
        self._changed = asyncio.Event()
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def normal(self, pod: Mapping[str, Any], reason: str, message: str) -> None:
        """Something that was to be expected."""
        self._put(_event(pod, "Normal", reason, message))

    def warning(
        self, pod: Mapping[str, Any], reason: str, message: str, *, container: str = ""
    ) -> None:
        """Something the user should look at; about one container, where that is named."""
        self._put(_event(pod, "Warning", reason, message, container))

    def observed(self, pod: Mapping[str, Any], event: ContainerEvent) -> None:
        """What a supervisor saw, as often as it saw it; telling it twice changes nothing."""
        kind = "Warning" if event.is_warning else "Normal"
        made = _event(pod, kind, event.reason, event.message, event.container)
        made |= {
            "count": event.count,
            "firstTimestamp": rfc3339(event.first_at_s),
            "lastTimestamp": rfc3339(event.last_at_s),
        }
        self._put(made, is_whole=True)

    def _put(self, event: Json, *, is_whole: bool = False) -> None:
        """Have the event written.

        :param is_whole: its count says it all; else it is one more.
        """
        name = event["metadata"]["name"]
        if not is_whole:
            event["count"] = self._counts.get(name, 0) + 1
        waiting = self._waiting.get(name)
        if waiting is not None:
            event["firstTimestamp"] = waiting["firstTimestamp"]
        elif (
            not self._may_say(event["involvedObject"]["uid"]) or len(self._waiting) >= _MOST_WAITING
        ):
            return
        self._remember(name, event["count"])
        self._waiting[name] = event
        self._changed.set()

    def _may_say(self, uid: str) -> bool:
        now_s = self._clock_s()
        bucket = self._buckets.pop(uid, None) or _Bucket(float(BURST), now_s)
        bucket.left = min(float(BURST), bucket.left + (now_s - bucket.at_s) / _REFILL_S)
        bucket.at_s = now_s
        allowed = bucket.left >= 1
        bucket.left -= 1 if allowed else 0
        self._buckets[uid] = bucket
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return allowed

    def _remember(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    async def run(self) -> None:
        """Write events as they come, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_WRITERS):
                tasks.create_task(self._write_all())

    async def _write_all(self) -> None:
        while True:
            event = self._next()
            if event is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            name = event["metadata"]["name"]
            self._writing.add(name)
            try:
                await self._write(event)
            except ApiError as error:
                log.debug("event not written: %s", error)
            finally:
                self._writing.discard(name)
                self._changed.set()

    def _next(self) -> Json | None:
        """The oldest that waits and is not being written in an earlier version."""
        for name in self._waiting:
            if name not in self._writing:
                return self._waiting.pop(name)
        return None

    async def _write(self, event: Json) -> None:
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        collection = path("api", "v1", "namespaces", namespace, "events")
        patch = {"count": event["count"], "lastTimestamp": event["lastTimestamp"]}
        if event["count"] > 1:
            with contextlib.suppress(ApiError):
                await self._api.merge_patch(f"{collection}/{name}", patch)
                return
        try:
            await self._api.create(collection, event)
        except ApiError as error:
            if not error.is_conflict:
                raise
            # Told before, by a kubelet whose count we do not know.
            if event["count"] == 1:
                del patch["count"]
            await self._api.merge_patch(f"{collection}/{name}", patch)


def _event(
    pod: Mapping[str, Any], kind: str, reason: str, message: str, container: str = ""
) -> Json:
    meta = pod["metadata"]
    now = rfc3339_now()
    about = "\n".join((meta["uid"], reason, message, *([container] if container else [])))
    key = hashlib.sha256(about.encode()).hexdigest()[:16]
    involved = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": meta["name"],
        "namespace": meta["namespace"],
        "uid": meta["uid"],
    }
    if container:
        init = any(c["name"] == container for c in pod["spec"].get("initContainers") or [])
        field = "initContainers" if init else "containers"
        involved["fieldPath"] = f"spec.{field}{{{container}}}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{meta['name'][:200].rstrip('-.')}.{key}",
            "namespace": meta["namespace"],
        },
        "involvedObject": involved,
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
