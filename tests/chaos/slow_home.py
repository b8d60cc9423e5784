"""``python -m tests.chaos.slow_home SOURCE MOUNTPOINT``: a home that misbehaves on command.

Passes everything through to SOURCE until a line on standard input says otherwise:

- ``stall SECONDS``: every call waits, as on a hung NFS mount;
- ``full`` and ``readonly``: whatever writes ends with ENOSPC or EROFS;
- ``late SECONDS``: what a host makes, other hosts do not see for so long (NFS's negative entries);
- ``fine``: none of these any more. A stall that has begun goes on to its end.

Prints ``mounted`` when it is, and ends, unmounted, when standard input ends.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mfusepy

_WRITING = frozenset(
    [
        "create",
        "mkdir",
        "mknod",
        "symlink",
        "link",
        "rename",
        "write",
        "truncate",
        "chmod",
        "chown",
        "utimens",
        "fallocate",
    ]
)
_ENTRY_OPTIONS = {"entry_timeout": 0, "attr_timeout": 0, "negative_timeout": 0}


class Faults:
    """What is wrong with the home now. One line of the control at a time changes it."""

    def __init__(self) -> None:
        self._stalled_until_mono_s = 0.0
        self._errno = 0
        self._late_s = 0.0
        self._made: dict[str, tuple[float, str]] = {}

    def obey(self, line: str) -> None:
        """:param line: one of the module's commands; unknown ones are reported and ignored."""
        word, _, amount = line.strip().partition(" ")
        if word == "stall":
            self._stalled_until_mono_s = time.monotonic() + float(amount)
        elif word == "full":
            self._errno = errno.ENOSPC
        elif word == "readonly":
            self._errno = errno.EROFS
        elif word == "late":
            self._late_s = float(amount)
        elif word == "fine":
            self._errno, self._late_s = 0, 0.0
            self._made.clear()
        elif word:
            print(f"slow_home: {word!r} is no command", file=sys.stderr)

    def meet(self, operation: str) -> None:
        """:raises mfusepy.FuseOSError: what this operation ends with now."""
        while (left_s := self._stalled_until_mono_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.5))
        if self._errno and operation in _WRITING:
            raise mfusepy.FuseOSError(self._errno)

    def made(self, path: str) -> None:
        """A host made this entry."""
        if self._late_s:
            self._made[path] = (time.monotonic() + self._late_s, _calling_host())

    def is_hidden(self, path: str) -> bool:
        """Whether the calling host does not see this entry yet."""
        until_mono_s, maker = self._made.get(path, (0.0, ""))
        return time.monotonic() < until_mono_s and _calling_host() != maker


def _calling_host() -> str:
    """The host of the lab that the calling process is on, by its cgroup; "" where unknown."""
    _, _, pid = mfusepy.fuse_get_context()
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        parts = line.split("/")
        if len(parts) > 2 and parts[1].startswith("hpk-lab"):
            return parts[2]
    return ""


def _meeting_faults(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, after whatever the faults do to it. Its first argument is a path."""
    name = operation.__name__

    @functools.wraps(operation)
    def meet(self: SlowHome, path: str, *args: Any) -> Any:
        self.faults.meet(name)
        if self.faults.is_hidden(path):
            raise mfusepy.FuseOSError(errno.ENOENT)
        return operation(self, path, *args)

    return meet


class SlowHome(mfusepy.Operations):  # type: ignore[misc]
    """A directory as it is, but for the faults. Paths are the mount's, from its root."""

    use_ns = True

    def __init__(self, source: str, faults: Faults) -> None:
        self._source = source
        self.faults = faults

    def _real(self, path: str) -> str:
        return self._source + path

    def _given(self, path: str) -> None:
        """Give what was made to whoever made it."""
        uid, gid, _ = mfusepy.fuse_get_context()
        os.lchown(self._real(path), uid, gid)
        self.faults.made(path)

    # Entries

    @_meeting_faults
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """stat(2) of the entry, or of what is open."""
        info = os.lstat(self._real(path)) if fh is None else os.fstat(fh)
        names = ("mode", "ino", "nlink", "uid", "gid", "size", "blocks")
        times = {
            f"st_{name}": getattr(info, f"st_{name}_ns") for name in ("atime", "mtime", "ctime")
        }
        return {f"st_{name}": getattr(info, f"st_{name}") for name in names} | times

    @_meeting_faults
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        """A directory's names and inodes, without those the calling host does not see yet."""
        prefix = path.rstrip("/")
        own = os.lstat(self._real(path)).st_ino
        found = [(name, {"st_ino": own}, 0) for name in (".", "..")]
        with os.scandir(self._real(path)) as entries:
            for entry in entries:
                if not self.faults.is_hidden(f"{prefix}/{entry.name}"):
                    found.append((entry.name, {"st_ino": entry.inode()}, 0))
        return found

    @_meeting_faults
    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    @_meeting_faults
    def mkdir(self, path: str, mode: int) -> int:
        Path(self._real(path)).mkdir(mode=mode)
        Path(self._real(path)).chmod(mode & 0o7777)
        self._given(path)
        return 0

    @_meeting_faults
    def symlink(self, target: str, source: str) -> int:
        Path(self._real(target)).symlink_to(source)
        self._given(target)
        return 0

    @_meeting_faults
    def link(self, target: str, source: str) -> int:
        os.link(self._real(source), self._real(target), follow_symlinks=False)
        self.faults.made(target)
        return 0

    @_meeting_faults
    def unlink(self, path: str) -> int:
        Path(self._real(path)).unlink()
        return 0

    @_meeting_faults
    def rmdir(self, path: str) -> int:
        Path(self._real(path)).rmdir()
        return 0

    @_meeting_faults
    def rename(self, old: str, new: str) -> int:
        Path(self._real(old)).rename(self._real(new))
        self.faults.made(new)
        return 0

    @_meeting_faults
    def chmod(self, path: str, mode: int) -> int:
        Path(self._real(path)).chmod(mode & 0o7777)
        return 0

    @_meeting_faults
    def chown(self, path: str, uid: int, gid: int) -> int:
        os.lchown(self._real(path), uid, gid)
        return 0

    @_meeting_faults
    def utimens(self, path: str, times: Any = None) -> int:
        os.utime(self._real(path), ns=times, follow_symlinks=False)
        return 0

    @_meeting_faults
    def statfs(self, path: str) -> dict[str, int]:
        info = os.statvfs(self._real(path))
        names = [
            "bavail",
            "bfree",
            "blocks",
            "bsize",
            "favail",
            "ffree",
            "files",
            "flag",
            "frsize",
            "namemax",
        ]
        return {f"f_{name}": getattr(info, f"f_{name}") for name in names}

    # Files

    @_meeting_faults
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        fd = os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode & 0o7777)
        os.fchmod(fd, mode & 0o7777)
        self._given(path)
        return fd

    @_meeting_faults
    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.faults.meet("write")
        # The kernel's page cache reads what is written: the descriptor must be able to.
        readable = (flags & ~(os.O_WRONLY | os.O_APPEND | os.O_EXCL)) | (
            os.O_RDWR if flags & os.O_WRONLY else 0
        )
        return os.open(self._real(path), readable)

    @_meeting_faults
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @_meeting_faults
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @_meeting_faults
    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        os.truncate(self._real(path) if fh is None else fh, length)
        return 0

    @_meeting_faults
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        os.fsync(fh)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0


def main(source: str, mountpoint: str) -> None:
    """Mount, obey, unmount."""
    faults = Faults()

    def control() -> None:
        _wait_mounted(mountpoint)
        print("mounted", flush=True)
        for line in sys.stdin:
            faults.obey(line)
        os.execvp("umount", ["umount", "-l", mountpoint])

    threading.Thread(target=control, daemon=True).start()
    mfusepy.FUSE(
        SlowHome(source, faults),
        mountpoint,
        foreground=True,
        allow_other=True,
        default_permissions=True,
        use_ino=True,
        **_ENTRY_OPTIONS,
    )


def _wait_mounted(mountpoint: str) -> None:
    while not os.path.ismount(mountpoint):
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
