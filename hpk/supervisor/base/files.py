"""Files of the supervisor: atomic and synced writes, the exclusive claim, its log.

The twin of hpk.statefs for the job, which may import nothing from outside its zipapp.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Union

from hpk.model.errors import PermanentError

_log_path = ""


def log_to(path: str) -> None:
    """Send the log to a file: a rank's standard error is the container's."""
    global _log_path
    _log_path = path


def log(message: str, **fields: object) -> None:
    """One line in the job's own log. Never a secret, a token or an environment value."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    tail = "".join(f" {name}={value}" for name, value in fields.items())
    line = f"{stamp} {message}{tail}\n".encode(errors="replace")
    with contextlib.suppress(OSError):
        if not _log_path:
            os.write(2, line)
            return
        fd = os.open(_log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


def read_file(path: str, limit: int = 64 * 1024 * 1024) -> bytes:
    """A whole file, up to ``limit`` bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        return file.read(limit)


def write_atomically(path: str, data: Union[str, bytes], *, mode: int = 0o600) -> None:
    """Replace a file so that a reader on any host sees the old or the new, and sync it."""
    payload = data.encode() if isinstance(data, str) else data
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
    write_new(temporary, payload, mode=mode, sync=True)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(directory)


def write_new(path: str, payload: bytes, *, mode: int = 0o600, sync: bool = False) -> None:
    """Write a file that must not exist yet; nothing is left where that fails."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(payload)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if sync:
                os.fsync(file.fileno())
    except BaseException:
        os.unlink(path)
        raise


def sync_directory(path: str) -> None:
    """Make a directory's entries durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def claim(path: str, owner: str) -> bool:
    """Take the attempt by link(2), which is atomic on NFS too; False if it is taken."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
    write_new(temporary, owner.encode(), sync=True)
    try:
        os.link(temporary, path)
    except FileExistsError:
        # An NFS server may have linked and its answer been lost: then the text is ours.
        return read_file(path) == owner.encode()
    finally:
        os.unlink(temporary)
    sync_directory(directory)
    return True


def private_directory(path: str) -> str:
    """Make a directory 0700 and check that it is ours and no link; the path.

    :raises PermanentError: somebody else owns it, or it is a link or no directory.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        raise PermanentError(f"{path} is not a directory", remedy="have it removed on this node")
    if info.st_uid != os.geteuid():
        raise PermanentError(
            f"{path} belongs to uid {info.st_uid}", remedy="have it removed on this node"
        )
    if info.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path


def close_files_but(*kept: int) -> None:
    """Close every descriptor but the standard ones and these."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the directory's own is closed already
                os.close(int(name))
