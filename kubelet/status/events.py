"""Events about Pods, with upstream's reasons, written when nothing more urgent is to be done.

Events are best effort: a lost one never stops a pod, and none delays its status. What repeats is
kubelet.status.event_correlator's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from hpk.model.record import ContainerEvent
from kubelet.api.apiserver import ApiError, ApiServer, Json, path
from kubelet.api.meta_time import rfc3339, rfc3339_now
from kubelet.status.event_correlator import COMBINED, EventCorrelator, event_name

log = logging.getLogger(__name__)

_MOST_WAITING = 20_000
_MOST_MINOR = 100
_WRITERS = 4


class EventRecorder:
    """Queues events and writes them in the background.

    One that waits already is brought up to date where it stands. Minor ones, that tell what is to
    be seen elsewhere too, come last, and where a hundred of them wait no more are taken: a pod by
    itself has them all, a thousand at once do not cost the API server a thousand writes of each.
    """

    def __init__(self, api: ApiServer, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._correlator = EventCorrelator(clock_s)
        self._waiting: OrderedDict[str, Json] = OrderedDict()
        self._minor: OrderedDict[str, Json] = OrderedDict()
        self._writing: set[str] = set()
        self._changed = asyncio.Event()

    def normal(
        self,
        pod: Mapping[str, Any],
        reason: str,
        message: str,
        *,
        container: str = "",
        is_minor: bool = False,
    ) -> None:
        """Something that was to be expected; about one container, where that is named."""
        self._put(_event(pod, "Normal", reason, message, container), is_minor=is_minor)

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

    def _put(self, event: Json, *, is_whole: bool = False, is_minor: bool = False) -> None:
        """Have the event written.

        :param is_whole: its count says it all; else it is one more.
        """
        queue, most = (self._minor, _MOST_MINOR) if is_minor else (self._waiting, _MOST_WAITING)
        event = self._correlator.correlate(event, is_whole=is_whole)
        name = event["metadata"]["name"]
        waiting = queue.get(name)
        if waiting is not None:
            event["firstTimestamp"] = waiting["firstTimestamp"]
        elif len(queue) >= most or not self._correlator.may_tell(event):
            return
        self._correlator.told(event)
        queue[name] = event
        self._changed.set()

    async def run(self) -> None:
        """Write events as they come, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_WRITERS):
                tasks.create_task(self._write_all())

    async def _write_all(self) -> None:
        while True:
            event = self._next(self._waiting) or self._next(self._minor)
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

    def _next(self, queue: OrderedDict[str, Json]) -> Json | None:
        """The oldest that waits and is not being written in an earlier version."""
        for name in queue:
            if name not in self._writing:
                return queue.pop(name)
        return None

    async def _write(self, event: Json) -> None:
        name, namespace = event["metadata"]["name"], event["metadata"]["namespace"]
        collection = path("api", "v1", "namespaces", namespace, "events")
        patch = {"count": event["count"], "lastTimestamp": event["lastTimestamp"]}
        if event["message"].startswith(COMBINED):
            patch["message"] = event["message"]
        if event["count"] > 1:
            with contextlib.suppress(ApiError):
                await self._api.merge_patch(f"{collection}/{name}", patch, is_urgent=False)
                return
        try:
            await self._api.create(collection, event, is_urgent=False)
        except ApiError as error:
            if not error.is_conflict:
                raise
            # Told before, by a kubelet whose count we do not know.
            if event["count"] == 1:
                del patch["count"]
            await self._api.merge_patch(f"{collection}/{name}", patch, is_urgent=False)


def _event(
    pod: Mapping[str, Any], kind: str, reason: str, message: str, container: str = ""
) -> Json:
    meta = pod["metadata"]
    now = rfc3339_now()
    node = pod["spec"].get("nodeName", "")
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
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": meta["namespace"]},
        "involvedObject": involved,
        "reason": reason,
        "message": message[:1024],
        "type": kind,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    name = event_name(event, reason, message, *([container] if container else []))
    event["metadata"]["name"] = name
    return event
