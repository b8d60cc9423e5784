"""Files that others rely on: replaced whole, claimed by one alone, appended line by line.

For the job and for what runs outside it alike: the standard library only, Python 3.9, and no
pathlib, which is slow to import. Every function returns when what it did would survive a crash of
this host, and is meant for a file system that several hosts share. Knows none of HPK's paths.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TypeVar, Union

from hpk.model.errors import PermanentError

AnyPath = Union[str, "os.PathLike[str]"]
P = TypeVar("P", bound="Union[str, os.PathLike[str]]")

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_file(path: AnyPath, limit: int = 64 * 1024 * 1024) -> bytes:
    """A whole file, up to ``limit`` bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        return file.read(limit)


def write_atomically(path: AnyPath, data: Union[str, bytes], *, mode: int = FILE_MODE) -> None:
    """Replace a file so that a reader on any host sees the old or the new, and sync it."""
    payload = data.encode() if isinstance(data, str) else data
    temporary = _beside(path)
    write_new(temporary, payload, mode=mode, sync=True)
    try:
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(os.fspath(path)))


def write_new(path: AnyPath, payload: bytes, *, mode: int = FILE_MODE, sync: bool = False) -> None:
    """Write a file that must not exist yet; nothing is left where that fails.

    :param sync: its content survives a crash; `sync_directory` is for its name.
    """
    fd = os.open(path, _NEW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(payload)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if sync:
                os.fsync(file.fileno())
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = os.fspath(path)  # a full disk does not say which
        raise


def append_line(path: AnyPath, line: str, *, sync: bool = True) -> None:
    """Append one line, whole, or raise and leave none of it.

    write(2) may take a part alone (a quota, a full disk) and say the rest to nobody, and the line
    would count as written and read as none. One process appends to a file at a time. What a crash
    left of a line before is ended first.

    :param sync: the line survives a crash of this host.
    :raises ValueError: it is more than one line.
    :raises OSError: it is not there; where even its beginning could not be taken back a reader
        finds a line that is cut short.
    """
    if "\n" in line:
        raise ValueError("more than one line")
    payload = line.encode() + b"\n"
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, FILE_MODE)
    try:
        before = os.fstat(fd).st_size
        if before and os.pread(fd, 1, before - 1) != b"\n":
            payload = b"\n" + payload
        try:
            rest = memoryview(payload)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if sync:
                os.fsync(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, before)
            raise
    finally:
        os.close(fd)
    if sync and not before:
        sync_directory(os.path.dirname(os.fspath(path)))


def sync_directory(path: AnyPath) -> None:
    """Make a directory's entries durable."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def claim(path: AnyPath, owner: str) -> bool:
    """Take an exclusive claim by link(2), which is atomic on NFS too.

    :returns: True if the claim is ours now (or was, with the same owner text), else False.
    """
    temporary = _beside(path)
    write_new(temporary, owner.encode(), sync=True)
    try:
        os.link(temporary, path)
    except FileExistsError:
        # An NFS server may have linked and its answer been lost: then the text is ours.
        return read_file(path) == owner.encode()
    finally:
        os.unlink(temporary)
    sync_directory(os.path.dirname(os.fspath(path)))
    return True


def private_directory(path: P) -> P:
    """Make the directory and what parents it lacks, 0700, and check that it is ours and no link.

    :raises PermanentError: somebody else owns it, it is a link, or others may enter it.
    """
    _make(str(path))
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        raise PermanentError(f"{path} is not a directory", remedy="move it away")
    if info.st_uid != os.geteuid():
        raise PermanentError(
            f"{path} belongs to uid {info.st_uid}",
            remedy="choose another path, or have it removed on that host",
        )
    if info.st_mode & 0o077:
        os.chmod(path, DIRECTORY_MODE)
    return path


def _make(path: str) -> None:
    # os.makedirs has the mode for the last directory alone, and others could look into ~/.cache.
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, DIRECTORY_MODE)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent in ("", path):
            raise
        _make(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, DIRECTORY_MODE)


def _beside(path: AnyPath) -> str:
    directory, name = os.path.split(os.fspath(path))
    return os.path.join(directory, f".{name}.{os.urandom(6).hex()}")
