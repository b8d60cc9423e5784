"""The kernel's table of mounts, and at which paths one directory is to be seen. Pure.

Source: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.supervisor.base.paths import is_inside


@dataclass(frozen=True)
class TableEntry:
    """One mount.

    :param device: ``major:minor``, the same for all mounts of a file system.
    :param root: what of that file system is mounted.
    :param point: where.
    """

    device: str
    root: str
    point: str


def parse_mountinfo(text: str) -> tuple[TableEntry, ...]:
    """/proc/self/mountinfo; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) >= 6:
            found.append(TableEntry(fields[2], _plain(fields[3]), _plain(fields[4])))
    return tuple(found)


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def paths_of(directory: str, table: Iterable[TableEntry]) -> tuple[str, ...]:
    """All paths of a directory: its own first, then where the same part of its file system is
    mounted a second time, or a part within it.

    :param directory: a real path.
    """
    table = tuple(table)
    home = _mount_of(directory, table)
    if home is None:
        return (directory,)
    wanted = _join(home.root, directory[len(home.point) :] if home.point != "/" else directory)
    found = {directory: None}
    for entry in table:
        if entry.device == home.device and is_inside(wanted, entry.root):
            rest = wanted if entry.root == "/" else wanted[len(entry.root) :]
            found[_join(entry.point, rest)] = None
        elif entry.device == home.device and is_inside(entry.root, wanted):
            found[entry.point] = None
    return tuple(found)


def _mount_of(path: str, table: tuple[TableEntry, ...]) -> Optional[TableEntry]:
    """The mount that a path is in: the deepest, of several at one place the last."""
    found = None
    for entry in table:
        if is_inside(path, entry.point) and (found is None or len(entry.point) >= len(found.point)):
            found = entry
    return found


def _join(directory: str, rest: str) -> str:
    return os.path.join(directory, rest.lstrip("/")).rstrip("/") or "/"


def ancestors_of(path: str) -> tuple[str, ...]:
    """The directories that a path lies in, the highest first, without the root."""
    parts = path.strip("/").split("/")[:-1]
    return tuple("/" + "/".join(parts[: count + 1]) for count in range(len(parts)))
