"""Where one image is unpacked: a directory of ours that goes away, at the latest with the next one.

A process that is killed, or whose children still write while it clears up, leaves its directory.
Whoever makes the next holds a lock in its own and removes those whose lock nobody holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from hpk import trees
from hpk.flock import open_lock, try_lock
from hpk.images.errors import ERR_IMAGE_PULL, ImageError
from hpk.images.threads import in_thread, wholly

log = logging.getLogger(__name__)

_PREFIX = "hpk-image-"
_LOCK = ".hpk-lock"
_AGE_S = 60.0
"""How old a directory without a held lock must be: younger ones may be about to get theirs."""


@contextlib.asynccontextmanager
async def working_space(scratch: Path, purpose: str) -> AsyncIterator[Path]:
    """A new directory under ``scratch``, removed in the end.

    :raises ImageError: it cannot be made.
    """
    await in_thread(_sweep, scratch)
    try:
        space, lock = await wholly(_make, scratch, undo=lambda made: _remove(*made))
    except OSError as error:
        raise ImageError(
            ERR_IMAGE_PULL,
            f"cannot make working space for {purpose} in {scratch}: {error}",
            remedy="set TMPDIR to a directory with room for the unpacked image",
        ) from error
    try:
        yield space
    finally:
        # In a thread: an unpacked image may be 100 000 files.
        await asyncio.shield(in_thread(_remove, space, lock))


def _make(scratch: Path) -> tuple[Path, int]:
    space = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=scratch))
    return space, _lock(space)


def _remove(space: Path, lock: int) -> None:
    try:
        remove_tree(space)
    finally:
        os.close(lock)


def _lock(space: Path) -> int:
    """
    :raises BlockingIOError: a living process holds it.
    """
    lock = open_lock(space / _LOCK)
    try:
        if not try_lock(lock):
            raise BlockingIOError(f"{space} is in use")
    except OSError:
        os.close(lock)
        raise
    return lock


def _sweep(scratch: Path) -> None:
    """Remove what dead processes of this user left."""
    with contextlib.suppress(OSError), os.scandir(scratch) as entries:
        for entry in entries:
            if not entry.name.startswith(_PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):
                info = entry.stat(follow_symlinks=False)
                if info.st_uid != os.getuid() or time.time() - info.st_mtime < _AGE_S:
                    continue
                lock = _lock(Path(entry.path))
                log.info("remove %s, which a dead process left", entry.path)
                _remove(Path(entry.path), lock)


def remove_tree(path: Path) -> None:
    """Remove a directory, whatever an image has put there and with whatever permissions."""
    if not trees.remove_tree(path):
        log.warning("cannot remove %s", path)
