"""A lock between hosts that share a file system, for work that may be done twice but should not be.

O_EXCL makes the file, its owner writes a growing number into it while he lives. Others do not
compare clocks: a lock whose content has not changed for STALE_S of their own time is dead, as is
one whose process they can see to be gone. Two who break a dead lock in the same instant may both
work; that costs time and nothing else, because results are put in place by rename. All that
touches the file system is done in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from hpk.images.threads import in_thread, wholly

log = logging.getLogger(__name__)

BEAT_S = 5.0
STALE_S = 60.0
_POLL_S = 0.5
_UNBEATEN_BEAT = 0


def _here() -> str:
    """This host and process namespace, so that a process id means the same to both sides."""
    namespace = boot = ""
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}/{namespace}"


@contextlib.asynccontextmanager
async def build_lock(
    path: Path,
    is_done: Callable[[], bool],
    *,
    held_elsewhere: Callable[[], None] = lambda: None,
    beat_s: float = BEAT_S,
    stale_s: float = STALE_S,
    poll_s: float = _POLL_S,
) -> AsyncIterator[bool]:
    """Hold the lock; yields True, or False where `is_done` came true while others held it.

    :param is_done: is called in a thread.
    :param held_elsewhere: is called when it must be waited for.
    """
    fd = await _acquire(path, is_done, held_elsewhere, stale_s=stale_s, poll_s=poll_s)
    if fd is None:
        yield False
        return
    # No TaskGroup: it would wrap the errors of whoever holds the lock.
    beating = asyncio.create_task(_beat(fd, beat_s), name=f"beat {path.name}")
    try:
        yield True
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await asyncio.shield(in_thread(_release, path, fd))


async def _acquire(
    path: Path,
    is_done: Callable[[], bool],
    held_elsewhere: Callable[[], None],
    *,
    stale_s: float,
    poll_s: float,
) -> int | None:
    seen = b""
    seen_at_s = time.monotonic()
    while True:
        fd = await wholly(_take, path, undo=lambda taken: _let_go(path, taken))
        if fd is not None:
            return fd
        if await in_thread(is_done):
            return None
        content = await in_thread(_read, path)
        if content is None:
            continue
        if content != seen:
            if not seen:
                held_elsewhere()
            seen, seen_at_s = content, time.monotonic()
        is_stale = time.monotonic() - seen_at_s > stale_s
        if is_stale or await in_thread(_owner_is_gone, content):
            await in_thread(_break, path, content)
            continue
        await asyncio.sleep(poll_s)


def _take(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return None
    _write(fd, _UNBEATEN_BEAT)
    return fd


def _write(fd: int, beat: int) -> None:
    # A nonce of the process would do; host and pid also tell a person who looks.
    os.pwrite(fd, f"{_here()} {os.getpid()} {beat:020d}\n".encode(), 0)
    os.fsync(fd)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _owner_is_gone(content: bytes) -> bool:
    where, _, rest = content.decode(errors="replace").strip().partition(" ")
    pid = rest.partition(" ")[0]
    if where != _here() or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _break(path: Path, dead: bytes) -> None:
    aside = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        if _read(aside) != dead:
            # Somebody was faster and this is his new lock: put it back.
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


async def _beat(fd: int, beat_s: float) -> None:
    beat = _UNBEATEN_BEAT
    while True:
        await asyncio.sleep(beat_s)
        beat += 1
        try:
            # Wholly, for the descriptor is closed once this is cancelled.
            await wholly(_write, fd, beat, undo=lambda _: None)
        except OSError as error:
            # At worst somebody takes the lock for dead and does the work too.
            log.warning("cannot beat in a lock: %s", error)


def _let_go(path: Path, fd: int | None) -> None:
    if fd is not None:
        _release(path, fd)


def _release(path: Path, fd: int) -> None:
    try:
        with contextlib.suppress(OSError):
            if os.path.samestat(path.lstat(), os.fstat(fd)):
                path.unlink()
    finally:
        os.close(fd)
