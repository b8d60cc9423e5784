"""What a container sees of the node, as it is ordered: from where, to where, and what is hidden.

A runtime is never given the name of something that a container can change. Whoever starts it opens
each source first and binds it, by its descriptor, to a place of its own (hpk.supervisor.process.
placing): the names that the runtime gets are those of places. Pure.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence
from typing import Optional

from hpk.model.frozen import dataclass, replace
from hpk.runtimes.base import BindMount
from hpk.supervisor.base.paths import is_inside

IMAGE = "image"
"""The place of the image."""
DIRECTORY = "w"
"""Where the runtime sees the container's own directory."""


@dataclass(frozen=True)
class Mount:
    """A file or directory of the node inside the container.

    :param source: a real path.
    :param is_foreign: it is none of HPK's own, so what it may hold of HPK's is hidden.
    """

    source: str
    target: str
    read_only: bool
    is_foreign: bool = False


@dataclass(frozen=True)
class Placed:
    """One source and its place.

    :param name: of the place, in the anchor.
    :param within: the place in whose tree it is shown, at ``below``; None: the runtime shows it.
    """

    name: str
    source: str
    read_only: bool
    is_foreign: bool
    within: Optional[str] = None
    below: str = ""


@dataclass(frozen=True)
class Places:
    """All places of a container.

    :param anchor: the directory in whose place they are; an existing one of HPK's.
    :param directory: the container's own, on node-local disk; shown in the anchor.
    :param placed: from the root of the container downwards.
    :param own: HPK's directories, real paths. Nobody sees them through a foreign source.
    :param needed: parts of these that the runtime cannot do without.
    """

    anchor: str
    directory: str
    placed: tuple[Placed, ...]
    own: tuple[str, ...]
    needed: tuple[str, ...]


def plan_places(
    mounts: Sequence[Mount], image: Mount, anchor: str
) -> tuple[tuple[Placed, ...], tuple[BindMount, ...]]:
    """The places of a container's mounts and its image, and what the runtime is told to show.

    :param mounts: from the root downwards.
    :param image: its target is of no importance.
    """
    placed: list[Placed] = []
    shown: list[BindMount] = []
    targets: list[tuple[str, str]] = []
    for number, mount in enumerate(mounts):
        target = posixpath.normpath(mount.target)
        if _is_device(mount.source, target):
            shown.append(BindMount(mount.source, mount.target, mount.read_only))
            continue
        name = str(number)
        item = Placed(name, mount.source, mount.read_only, mount.is_foreign)
        outer = _outer(target, targets)
        if outer is None:
            place = os.path.join(anchor, name)
            shown.append(BindMount(place, mount.target, mount.read_only))
        else:
            item = replace(item, within=outer[0], below=target[len(outer[1]) :].lstrip("/"))
        targets.append((name, target))
        placed.append(item)
    placed.append(Placed(IMAGE, image.source, False, image.is_foreign))
    return tuple(placed), tuple(shown)


def _is_device(source: str, target: str) -> bool:
    """Whether something of /dev is to be shown where it is: as that alone Apptainer lets it be a
    device. Nobody but the node's root changes a name in there, outside /dev/shm."""
    in_shm = is_inside(source, "/dev/shm")
    return source == target and source.startswith("/dev/") and not in_shm


def _outer(target: str, targets: Iterable[tuple[str, str]]) -> Optional[tuple[str, str]]:
    """The last of those that a target lies in; the deepest, for they go downwards."""
    found = None
    for name, other in targets:
        if other != target and is_inside(target, other):
            found = (name, other)
    return found


def needed_parts(programs: Iterable[str], own: Sequence[str]) -> tuple[str, ...]:
    """What a runtime cannot do without of directories that are hidden: where its programs are
    installed (``…/apptainer`` for ``…/apptainer/bin/apptainer``).

    :param programs: real paths.
    """
    found: dict[str, None] = {}
    for program in programs:
        for directory in own:
            if is_inside(program, directory):
                prefix = os.path.dirname(os.path.dirname(program))
                inside = is_inside(prefix, directory)
                found[prefix if inside else os.path.dirname(program)] = None
    return tuple(found)
