"""Trees of directories that a stranger has made: gone through and removed, however deep they are.

A container may nest directories to where no path reaches and no recursion gets. So nothing here
calls itself, keeps a descriptor for each level, or says more than one name to the kernel at a time;
and no link is followed. For the job and for what runs outside it alike: the standard library only,
Python 3.9.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import Optional, Union

AnyPath = Union[str, "os.PathLike[str]"]

_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASSES = 3


def remove_tree(path: AnyPath) -> bool:
    """Remove a tree of ours, made unreadable parts and all; whether it is gone.

    What lies in a directory below is moved up to the top before the directory is removed, so the
    tree is never more than two levels deep where we are.
    """
    if not os.path.lexists(path):
        return True
    with contextlib.suppress(OSError):
        top = _open_own(path, None)
        try:
            for _ in range(_PASSES):  # somebody may still write there
                if _empty(top):
                    break
        finally:
            os.close(top)
        os.rmdir(path)
    return not os.path.lexists(path)


def _empty(top: int) -> bool:
    """Try to remove all that is in a directory; whether it was all."""
    waiting = deque(os.listdir(top))
    is_all = True
    while waiting:
        name = waiting.popleft()
        try:
            os.unlink(name, dir_fd=top)
        except FileNotFoundError:
            continue
        except OSError:  # a directory, most likely
            is_all = _remove_directory(top, name, waiting) and is_all
    return is_all


def _remove_directory(top: int, name: str, waiting: deque[str]) -> bool:
    """Remove a directory in ``top``, with what is directly in it; the directories there move up."""
    with contextlib.suppress(OSError):
        directory = _open_own(name, top)
        try:
            for child in os.listdir(directory):
                with contextlib.suppress(OSError):
                    _take_out(directory, child, top, waiting)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)
        return True
    return False


def _take_out(directory: int, name: str, top: int, waiting: deque[str]) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=directory)
        return
    # Whose ".." changes must be writable to us.
    os.close(_open_own(name, directory))
    aside = f".{os.urandom(12).hex()}"
    os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=top)
    waiting.append(aside)


def _open_own(name: AnyPath, directory: Optional[int]) -> int:
    """A descriptor of a directory that may be read, entered and changed from now on."""
    place = os.open(name, _PATH, dir_fd=directory)
    try:
        if os.fstat(place).st_mode & 0o700 != 0o700:
            with contextlib.suppress(OSError):  # not ours: it may do all the same
                os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(".", _LIST, dir_fd=place)
    finally:
        os.close(place)


def stats_below(path: AnyPath) -> Iterator[os.stat_result]:
    """What lstat says of all that is below a directory; what may not be looked into is left out,
    and so may be what changes meanwhile.

    :raises OSError: the directory itself cannot be read, or this process has no more descriptors.
    """
    top = os.open(path, _LIST)
    here = os.dup(top)
    try:
        levels = [_Level("", os.fstat(here))]
        yield from levels[0].look(here)
        while levels:
            name = levels[-1].next_directory()
            if name is not None:
                below = _open_listed(here, name)
                if below >= 0:
                    os.close(here)
                    here = below
                    levels.append(_Level(name, os.fstat(here)))
                    yield from levels[-1].look(here)
                continue
            levels.pop()
            if levels:
                here = _go_up(top, here, levels)
    finally:
        os.close(here)
        os.close(top)


class _Level:
    """A directory that has been looked at, on the way down to where we are.

    :param name: in the one above.
    """

    def __init__(self, name: str, info: os.stat_result) -> None:
        self.name = name
        self.identity = info.st_dev, info.st_ino
        self._directories: list[str] = []

    def look(self, fd: int) -> Iterator[os.stat_result]:
        """What lstat says of what is in it."""
        for name in _names(fd):
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                self._directories.append(name)
            yield info

    def next_directory(self) -> Optional[str]:
        """One in it that was not entered yet."""
        return self._directories.pop() if self._directories else None


def _names(fd: int) -> list[str]:
    try:
        return os.listdir(fd)
    except (FileNotFoundError, PermissionError):
        return []


def _open_listed(directory: int, name: str) -> int:
    """A descriptor, -1 where it is no directory that may be read."""
    try:
        return os.open(name, _LIST, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return -1
    except OSError as error:
        if error.errno == errno.ELOOP:
            return -1
        raise


def _go_up(top: int, here: int, levels: list[_Level]) -> int:
    """A descriptor of the last of the levels, ``here`` being in it and closed; where that has been
    moved elsewhere meanwhile, of the deepest that is still where it was: the others are dropped."""
    try:
        above = os.open("..", _LIST, dir_fd=here)
    except PermissionError:
        above = -1
    os.close(here)
    if above >= 0:
        if _is(above, levels[-1]):
            return above
        os.close(above)
    above = os.dup(top)
    for number, level in enumerate(levels[1:], 1):
        below = _open_listed(above, level.name)
        if below >= 0 and not _is(below, level):
            os.close(below)
            below = -1
        if below < 0:
            del levels[number:]
            break
        os.close(above)
        above = below
    return above


def _is(fd: int, level: _Level) -> bool:
    info = os.fstat(fd)
    return (info.st_dev, info.st_ino) == level.identity
