"""Paths that somebody else may change while they are walked: opened part by part, through no link.

A container can exchange what it may write to, a directory for a link, between a look at a path and
its use. What such a path leads to is therefore opened once, each part of it in the one before, and
used by its descriptor. Links are followed earlier, by os.path.realpath, and never again.
"""

from __future__ import annotations

import errno
import os
import stat

_PART = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def is_inside(path: str, directory: str) -> bool:
    """Whether a real path is a directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def open_path(path: str) -> int:
    """A descriptor (O_PATH) of what is at an absolute path without links.

    :raises OSError: it is not there, or a part of it is a link.
    """
    root = os.open("/", _PART | os.O_DIRECTORY)
    try:
        return open_below(root, path)
    finally:
        os.close(root)


def open_below(directory: int, relative: str) -> int:
    """The same from a directory's descriptor; what is mounted on the way is entered.

    :raises OSError: as above.
    """
    fd = os.dup(directory)
    try:
        for part in _parts(relative):
            below = _open_part(fd, part)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def _parts(relative: str) -> list[str]:
    parts = [part for part in relative.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), relative)
    return parts


def _open_part(directory: int, part: str) -> int:
    try:
        # As a directory first: what an automounter brings is brought by that.
        return os.open(part, _PART | os.O_DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        fd = os.open(part, _PART, dir_fd=directory)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, "it has become a symbolic link", part)
    return fd


def make_directories(directory: int, relative: str, mode: int) -> int:
    """Open directories below ``directory``, those that are missing made with ``mode``.

    :returns: a descriptor of the last.
    :raises OSError: a part of it is no directory, or a link.
    """
    fd = os.dup(directory)
    try:
        for part in _parts(relative):
            below = _make_directory(fd, part, mode)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_directory(directory: int, name: str, mode: int) -> int:
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return os.open(name, _PART | os.O_DIRECTORY, dir_fd=directory)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory)
    os.fchmod(fd, mode)  # whatever the umask is
    return fd


def make_file(directory: int, name: str, mode: int) -> None:
    """Make an empty file, if nothing of that name is there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, mode, dir_fd=directory)
    except FileExistsError:
        return
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
