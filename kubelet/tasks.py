"""Long-lived tasks that end only when told to: a failure is logged and the task starts again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

_PAUSE_S = 1.0


async def keep_running(name: str, task: Callable[[], Awaitable[None]]) -> None:
    """Run ``task`` for ever, again after a failure or an end, with a pause between."""
    while True:
        try:
            await task()
        except Exception:
            log.exception("%s failed, starting again", name)
        await asyncio.sleep(_PAUSE_S)
