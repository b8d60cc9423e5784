"""Tasks that run beside the one that has them, and end with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def background(
    *coroutines: Coroutine[Any, Any, None],
) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Run them as tasks until the block ends; whoever waits for one gets its exception."""
    tasks = tuple(map(asyncio.create_task, coroutines))
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Until one of them returns or raises; the others are cancelled."""
    async with background(*coroutines) as tasks:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()


async def all_of(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Until all of them have returned, or one raises; the others are then cancelled."""
    async with background(*coroutines) as tasks:
        await asyncio.gather(*tasks)


async def while_running(task: asyncio.Task[None], coroutine: Coroutine[Any, Any, None]) -> None:
    """Until the coroutine returns or raises; where the task ends before, until then, with its
    exception."""

    async def wait() -> None:
        await asyncio.shield(task)

    await first_of(coroutine, wait())
