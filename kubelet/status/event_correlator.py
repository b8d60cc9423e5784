"""Which Events are told, which are counted or combined: no pod floods the API server, and none that
crashes in a loop pushes out what others have to say. No I/O.

As upstream has it (client-go/tools/record, events_cache.go): what is the same is counted; ten that
differ by their message alone, within ten minutes, go on as one; and each Pod may say so much at
once of each type, then one thing in five minutes.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Json = dict[str, Any]
K = TypeVar("K")
V = TypeVar("V")

BURST = 25
COMBINED = "(combined from similar events): "
MAX_SIMILAR = 10
_REFILL_S = 300.0
_SIMILAR_S = 600.0
_REMEMBERED = 4096


@dataclass(slots=True)
class _Bucket:
    """How much a Pod may still say. ``at_s`` is monotonic."""

    left: float
    at_s: float


@dataclass(slots=True)
class _Similar:
    """Messages of one Pod and reason; when the last of them came."""

    messages: set[str]
    at_s: float


class EventCorrelator:
    """Remembers what was told of late."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._similar: OrderedDict[tuple[str, str, str], _Similar] = OrderedDict()
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def correlate(self, event: Json, *, is_whole: bool) -> Json:
        """The Event to write for this one: itself with its count, or the one for all similar.

        :param event: v1.Event, with the name for itself alone.
        :param is_whole: its count says it all; else it is one more.
        """
        if self._is_one_of_many(event):
            event = _combined(event)
        elif is_whole:
            return event
        return event | {"count": self._counts.get(event["metadata"]["name"], 0) + 1}

    def told(self, event: Json) -> None:
        """The event is written, or will be."""
        _remember(self._counts, event["metadata"]["name"], event["count"])

    def may_tell(self, event: Json) -> bool:
        """Whether its Pod has not said too much; asked once for each."""
        now_s = self._clock_s()
        key = (event["involvedObject"]["uid"], event["type"])
        bucket = self._buckets.get(key) or _Bucket(float(BURST), now_s)
        bucket.left = min(float(BURST), bucket.left + (now_s - bucket.at_s) / _REFILL_S)
        bucket.at_s = now_s
        allowed = bucket.left >= 1
        bucket.left -= 1 if allowed else 0
        _remember(self._buckets, key, bucket)
        return allowed

    def _is_one_of_many(self, event: Json) -> bool:
        now_s = self._clock_s()
        key = (event["involvedObject"]["uid"], event["type"], event["reason"])
        similar = self._similar.get(key)
        if similar is None or now_s - similar.at_s > _SIMILAR_S:
            similar = _Similar(set(), now_s)
        similar.messages.add(event["message"])
        similar.at_s = now_s
        _remember(self._similar, key, similar)
        if len(similar.messages) < MAX_SIMILAR:
            return False
        similar.messages.pop()
        return True


def event_name(event: Json, *parts: str) -> str:
    """A name that only an Event about the same Pod with the same parts has."""
    involved = event["involvedObject"]
    key = hashlib.sha256("\n".join((involved["uid"], *parts)).encode()).hexdigest()[:16]
    return f"{involved['name'][:200].rstrip('-.')}.{key}"


def _combined(event: Json) -> Json:
    name = event_name(event, event["type"], event["reason"])
    return event | {
        "metadata": event["metadata"] | {"name": name},
        "message": (COMBINED + event["message"])[:1024],
    }


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > _REMEMBERED:
        cache.popitem(last=False)
