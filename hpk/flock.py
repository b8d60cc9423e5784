"""Locks that the kernel lets go with the process that holds them: flock(2).

The one kind of lock for what the processes of one host share, and for what a child process is to
hold on for its parent. For the job too: the standard library only, Python 3.9. What hosts share
wants a lease, whose holder gives signs of life (bootstrap.lock).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator

from hpk.durable import FILE_MODE, AnyPath

_POLL_S = 0.1


def open_lock(path: AnyPath) -> int:
    """A descriptor to lock, of a file that is made where it is missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take the lock if nobody holds it (or nobody alone); whether it is ours now.

    :raises OSError: this file system has no such locks.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def exclusive_lock(path: AnyPath) -> Iterator[int]:
    """Hold the lock; yields its descriptor, and a child that inherits it holds it too."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def wait_for_lock(
    path: AnyPath, waiting: Callable[[], None] | None = None
) -> AsyncIterator[int]:
    """`exclusive_lock` for an event loop: waits without holding a thread.

    :param waiting: called once, and only where somebody else holds the lock.
    """
    import asyncio  # here, so that a job does not pay for it

    fd = open_lock(path)
    try:
        while not try_lock(fd):
            if waiting is not None:
                waiting()
                waiting = None
            # No event tells of another process.
            await asyncio.sleep(_POLL_S)
        yield fd
    finally:
        os.close(fd)
