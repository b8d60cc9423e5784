"""Whether a file has changed, looked at once a second for all who wait for that.

Network file systems tell nobody of a change, so that whoever follows a log without a channel has to
look; a thousand followers of one log look once, and read when there is something to be read.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kubelet.shared_files import SharedFiles

_LOOK_AGAIN_S = 1.0

FileLook = tuple[int, int, int] | None
"""Inode, size and nanoseconds of the last change; None: there is no such file."""


class FileLooks:
    """See the module's docstring."""

    def __init__(self, files: SharedFiles) -> None:
        self._files = files
        self._looks: dict[Path, asyncio.Task[FileLook]] = {}

    async def next(self, path: Path) -> FileLook:
        """How the file is, in a while.

        :raises OSError: the file system does not answer.
        """
        look = self._looks.get(path)
        if look is None:
            look = self._looks[path] = asyncio.create_task(self._look(path))
        # Shielded: whoever goes leaves it to the others.
        return await asyncio.shield(look)

    async def _look(self, path: Path) -> FileLook:
        try:
            await asyncio.sleep(_LOOK_AGAIN_S)
            return await self._files.do_bulk(_stat, path)
        finally:
            del self._looks[path]


def _stat(path: Path) -> FileLook:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
