"""The files of one container's log, and where in the whole of it each begins. No I/O.

Offsets count from the first byte ever written, through rotations, so that a reader may take one
part from the supervisor and the next from the disk. A rotated file's name says where it begins:
``0.log.20260102-030405.10485760``; the file being written begins where the last one of these ends.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpk.model.frozen import dataclass


@dataclass(frozen=True)
class LogFile:
    """One file. ``start`` is the offset of its first byte; ``name`` is without directory."""

    start: int
    name: str


def rotated_name(name: str, stamp: str, start: int) -> str:
    """What the file being written is called after it was rotated.

    :param stamp: ``YYYYMMDD-HHMMSS``, for people, and as upstream names them.
    """
    return f"{name}.{stamp}.{start}"


def log_files(name: str, entries: Iterable[tuple[str, int]]) -> tuple[LogFile, ...]:
    """The files there are, in order; the last is the one being written, whether or not it is there.

    :param name: of the file being written.
    :param entries: names of a directory, and how long each file is in bytes.
    """
    rotated = []
    for entry, size in entries:
        stamp, dot, start = entry[len(name) + 1 :].rpartition(".")
        if entry.startswith(f"{name}.") and dot and stamp and start.isascii() and start.isdigit():
            rotated.append((int(start), entry, size))
    rotated.sort()
    files = [LogFile(start, entry) for start, entry, _ in rotated]
    end = rotated[-1][0] + rotated[-1][2] if rotated else 0
    return (*files, LogFile(end, name))


def file_at(files: tuple[LogFile, ...], offset: int) -> LogFile:
    """The file that has the byte at ``offset``, or the first one where that is gone."""
    found = files[0]
    for file in files:
        if file.start <= offset:
            found = file
    return found
