"""Threads for what blocks on a file system, so that a stalled one stops no event loop.

They are not asyncio's own few, which everybody else in the process needs as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_THREADS = ThreadPoolExecutor(max_workers=6, thread_name_prefix="images")


async def in_thread(function: Callable[..., T], *args: Any, **named: Any) -> T:
    """Call it in a thread. Who is cancelled meanwhile does not wait for its end."""
    call = partial(function, *args, **named)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call)


async def wholly(function: Callable[..., T], *args: Any, undo: Callable[[T], object]) -> T:
    """Call it in a thread and undo it, in a thread too, if the caller is cancelled meanwhile."""
    call = asyncio.ensure_future(in_thread(function, *args))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        # Nobody can stop a thread; its result would be lost, and with it what it holds.
        await asyncio.wait([call])
        if call.exception() is None:
            await in_thread(undo, call.result())
        raise
