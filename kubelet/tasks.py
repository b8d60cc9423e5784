"""Tasks whose failure is logged and goes no further: those that start again, those that end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

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


async def logged(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end; a failure is logged and stays here, so that the other pods go on."""
    try:
        await coroutine
    except Exception:
        log.exception("task failed")
