"""Answers that count for a moment, so that Pods that come together ask once.

A Job's thousand Pods of one tag would be a thousand requests, and registries count them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from hpk.images.single_flight import SingleFlight

_FRESH_S = 1.0
"""How long an answer counts: less than a push and the Pod that wants it are apart."""
_KEPT = 256

T = TypeVar("T")


class Recent(Generic[T]):
    """Asks, or gives the answer that somebody got just now; None is no answer and not kept."""

    def __init__(self, *, fresh_s: float = _FRESH_S) -> None:
        self._fresh_s = fresh_s
        self._asking: SingleFlight[T | None] = SingleFlight()
        self._answers: dict[str, tuple[float, T]] = {}

    async def get(self, key: str, ask: Callable[[], Coroutine[Any, Any, T | None]]) -> T | None:
        """The answer for this key, asked for no longer than a moment ago.

        :raises FlightEndedError: `close` was called meanwhile.
        """
        known = self._answers.get(key)
        if known is not None and time.monotonic() - known[0] < self._fresh_s:
            return known[1]
        return await self._asking.do(key, lambda: self._ask(key, ask))

    async def close(self) -> None:
        """End what is under way."""
        await self._asking.close()

    async def _ask(self, key: str, ask: Callable[[], Coroutine[Any, Any, T | None]]) -> T | None:
        asked_s = time.monotonic()
        answer = await ask()
        if answer is not None:
            self._answers.pop(key, None)
            while len(self._answers) >= _KEPT:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = (asked_s, answer)
        return answer
