"""How much of the control plane's host images may take: so many programs at once and no more.

A login node is everybody's. Whoever starts a program that unpacks or packs an image holds a slot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from hpk.images.progress import Tell


class Slots:
    """A bounded number of places, given out in the order they were asked for."""

    def __init__(self, most: int) -> None:
        """
        :param most: how many may be held at once.
        """
        self._most = most
        self._places = asyncio.Semaphore(most)

    @contextlib.asynccontextmanager
    async def hold(self, tell: Tell, doing: str) -> AsyncIterator[None]:
        """Hold a slot.

        :param tell: hears whether it waits, and ``doing`` once it need not any more.
        """
        if self._places.locked():
            noun = "images are" if self._most > 1 else "image is"
            tell(f"waiting: {self._most} other {noun} being worked on, which is the most at once")
        async with self._places:
            tell(doing)
            yield
