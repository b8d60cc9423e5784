"""What a tag names now, asked of its registry once for all Pods that come together.

A Job's thousand Pods of one tag would be a thousand requests, and registries count them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from hpk.images.reference import Reference
from hpk.images.single_flight import SingleFlight

_FRESH_S = 1.0
"""How long an answer counts: less than a push and the Pod that wants it are apart."""
_KEPT = 256

Ask = Callable[[Reference], Awaitable[str | None]]


class Tags:
    """Asks a registry, and remembers its answer for a moment."""

    def __init__(self, ask: Ask, *, fresh_s: float = _FRESH_S) -> None:
        self._ask = ask
        self._fresh_s = fresh_s
        self._asking: SingleFlight[str | None] = SingleFlight()
        self._answers: dict[Reference, tuple[float, str]] = {}

    async def current_digest(self, reference: Reference) -> str | None:
        """As the registry's; what it does not say is asked again by the next."""
        asked_s, digest = self._answers.get(reference, (0.0, ""))
        if digest and time.monotonic() - asked_s < self._fresh_s:
            return digest
        return await self._asking.do(str(reference), lambda: self._answer(reference))

    async def close(self) -> None:
        """End what is under way."""
        await self._asking.close()

    async def _answer(self, reference: Reference) -> str | None:
        asked_s = time.monotonic()
        digest = await self._ask(reference)
        if digest is not None:
            while len(self._answers) >= _KEPT:
                del self._answers[next(iter(self._answers))]
            self._answers[reference] = (asked_s, digest)
        return digest
