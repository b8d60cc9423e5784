"""What happened to containers, for the Pod's Events: the latest, counted where it is the same.

A probe may fail every second for days. Each new thing is told at once; that it happened again is
told with whatever else changes, or after a while.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Optional

from hpk.model.frozen import replace
from hpk.model.record import ContainerEvent

_KEPT = 64
_MAX_MESSAGE = 1000
_AGAIN_S = 10.0

_Key = tuple[str, str, str]


class Notes:
    """The pod's."""

    def __init__(self) -> None:
        self._events: OrderedDict[_Key, ContainerEvent] = OrderedDict()
        self._told_at_s = 0.0
        self._has_news = False

    def add(self, event: ContainerEvent) -> bool:
        """Count it; whether it is to be told now."""
        event = replace(event, message=event.message[:_MAX_MESSAGE])
        key = (event.container, event.reason, event.message)
        known = self._events.pop(key, None)
        if known is not None:
            event = replace(event, count=known.count + event.count, first_at_s=known.first_at_s)
        self._events[key] = event
        if len(self._events) > _KEPT:
            self._events.popitem(last=False)
        self._has_news = True
        return known is None or self.is_overdue(event.last_at_s)

    def is_overdue(self, now_s: float) -> bool:
        """Whether something untold has waited long enough."""
        return self._has_news and now_s - self._told_at_s >= _AGAIN_S

    def due_in_s(self, now_s: float) -> Optional[float]:
        """In how many seconds it is overdue; None where everything is told."""
        return self._told_at_s + _AGAIN_S - now_s if self._has_news else None

    def tell(self, now_s: float) -> tuple[ContainerEvent, ...]:
        """All of them, oldest first."""
        self._told_at_s, self._has_news = now_s, False
        return tuple(self._events.values())
