"""Showing a runtime what its container is to see, in a mount namespace of its own.

Runs in the process that becomes the runtime, before it does. HPK's own directories are hidden in
the whole namespace where anything foreign is shown: who looks out of the container by the /proc of
one of its FUSE servers finds them empty too. The runtime gets a copy of the namespace, in a user
namespace below this one, so the kernel locks what is mounted here: neither the runtime nor the
container's root can unmount what hides something, leave it out, or make writable what is read-only,
whatever capabilities they have there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from hpk.durable import read_file
from hpk.supervisor.base import linux
from hpk.supervisor.base.paths import (
    is_inside,
    make_directories,
    make_file,
    open_below,
    open_path,
)
from hpk.supervisor.process.mount_table import ancestors_of, parse_mountinfo, paths_of
from hpk.supervisor.process.places import DIRECTORY, IMAGE, Placed, Places

PLACES_STATUS = 75
"""What a process ends with that could not show something; it may be there later (EX_TEMPFAIL)."""
_REC_BIND = linux.MS_BIND | linux.MS_REC
_ST_FLAGS = (
    (os.ST_NOSUID, linux.MS_NOSUID),
    (os.ST_NODEV, linux.MS_NODEV),
    (os.ST_NOEXEC, linux.MS_NOEXEC),
    (os.ST_NOATIME, linux.MS_NOATIME),
    (os.ST_NODIRATIME, linux.MS_NODIRATIME),
    (os.ST_RELATIME, linux.MS_RELATIME),
)


class PlaceError(Exception):
    """Something cannot be shown; the message says what and why."""


def show_places(places: Places) -> None:
    """Make the places, in a new mount namespace of this process.

    :raises PlaceError: a source is gone, has become a link, or is where nothing may be shown from.
    :raises OSError: the kernel refuses.
    """
    os.chdir("/")  # where we were may be hidden, and a runtime is started nowhere
    _isolate()
    own_directory = open_path(places.directory)
    needed = {path: open_path(path) for path in places.needed}
    sources = {item.name: _open(item) for item in places.placed if not item.is_foreign}
    hidden: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    if any(item.is_foreign for item in places.placed):
        hidden, pins = _hide(places)
        sources.update({i.name: _open(i) for i in places.placed if i.is_foreign})
    if hidden:
        _uncover(needed, places.anchor, hidden)
    _put_unbindable_tmpfs(places.anchor)
    os.mkdir(f"{places.anchor}/{DIRECTORY}")
    _bind(own_directory, f"{places.anchor}/{DIRECTORY}")
    for item in places.placed:
        _put(places.anchor, item, sources[item.name], pins if item.is_foreign else ())
    for item in reversed(places.placed):  # the deepest first: it comes along with what it is in
        if item.within is not None:
            _put_within(places.anchor, item, item.within, sources)
    _lock()


def _isolate() -> None:
    """A mount namespace, as root of a user namespace where we are no root already."""
    if os.getuid() == 0:
        linux.unshare(linux.CLONE_NEWNS)
    else:
        _enter_namespaces()
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)


def _lock() -> None:
    """Have the kernel hold the mounts together against the runtime too: crun (1.8.1 for one) opens
    a source without what is mounted in it, unless it gets an error for that."""
    _enter_namespaces()


def _enter_namespaces() -> None:
    """The user as who he is here, for what he starts is to be no other."""
    parent = os.getppid()
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    linux.map_single_id(uid, uid, gid, gid)
    linux.die_with_parent(parent)  # new credentials have undone it


def _open(item: Placed) -> int:
    try:
        return open_path(item.source)
    except OSError as error:
        if item.name == IMAGE:  # it was there when the job began: no volume that may come
            raise
        raise PlaceError(f"cannot show {item.source}: {error.strerror}") from error


def _bind(source: int, target: str) -> None:
    linux.mount(f"/proc/self/fd/{source}", target, None, _REC_BIND)


def _put_unbindable_tmpfs(path: str) -> None:
    """A directory for us alone: binding what it lies in leaves it out."""
    linux.mount("tmpfs", path, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    linux.mount("none", path, None, linux.MS_UNBINDABLE)
    os.chmod(path, 0o755)


def _hide(places: Places) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put an empty directory that nobody can write to in the place of each of ours, wherever it is
    seen.

    :returns: these paths, the highest first; the pins that were made for them (see _pin).
    """
    table = parse_mountinfo(read_file("/proc/self/mountinfo").decode(errors="surrogateescape"))
    paths = {path for own in places.own for path in paths_of(own, table)}
    paths.add(places.anchor)
    wanted = tuple(path for path in sorted(paths, key=len) if _is_directory(path))
    pins = _pin(wanted, {entry.point for entry in table})
    targets = [(path, open_path(path)) for path in wanted]
    linux.mount("tmpfs", places.anchor, "tmpfs", linux.PROC_FLAGS)
    os.chmod(places.anchor, 0o555)
    _make_read_only(places.anchor)
    empty = open_path(places.anchor)
    for path, target in targets:
        if path != places.anchor:
            linux.mount(f"/proc/self/fd/{empty}", f"/proc/self/fd/{target}", None, linux.MS_BIND)
        os.close(target)
    os.close(empty)
    return wanted, pins


def _is_directory(path: str) -> bool:
    try:
        fd = open_path(path)
    except (FileNotFoundError, PermissionError):  # nor does the container get there
        return False
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _pin(paths: Iterable[str], points: set[str]) -> tuple[str, ...]:
    """Make mount points of the directories that these lie in, for no container can rename one: what
    lay in it would be where nobody looks for it, in the next container's namespace."""
    above = {item for path in paths for item in ancestors_of(path)}
    pins = tuple(sorted(above - points, key=len))
    for path in pins:
        fd = open_path(path)
        try:
            _bind(fd, f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    return pins


def _uncover(needed: Mapping[str, int], anchor: str, hidden: tuple[str, ...]) -> None:
    """Have the needed directories at their paths again, and one at the anchor's; for us alone."""
    open_again: set[str] = set()
    for path in (*sorted(needed, key=len), anchor):
        outer = next((item for item in hidden if is_inside(path, item) and path != item), "")
        if outer and outer not in open_again:
            _put_unbindable_tmpfs(outer)
            open_again.add(outer)
        if outer:
            os.makedirs(path, exist_ok=True)
        if path in needed:
            _bind(needed[path], path)
            linux.mount("none", path, None, linux.MS_UNBINDABLE)
            open_again.add(path)


def _put(anchor: str, item: Placed, source: int, pins: Iterable[str]) -> None:
    place = f"{anchor}/{item.name}"
    if stat.S_ISDIR(os.fstat(source).st_mode):
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        _bind(source, place)
        if item.read_only:
            _make_read_only(place)
            for pin in pins:  # a mount that nobody but we sees as one
                if is_inside(pin, item.source) and pin != item.source:
                    below = pin[len(item.source.rstrip("/")) :]
                    _make_read_only(place + below)
    except OSError as error:
        raise PlaceError(f"cannot show {item.source}: {error.strerror}") from error


def _make_read_only(path: str) -> None:
    """What else the mount is must be said again, or the kernel takes it for a wish to change it."""
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
    now = os.statvfs(path).f_flag
    for shown, wanted in _ST_FLAGS:
        flags |= wanted if now & shown else 0
    linux.mount("none", path, None, flags)


def _put_within(anchor: str, item: Placed, outer: str, sources: dict[str, int]) -> None:
    """Show a place in the tree of another; its mount point is made in the source of that."""
    is_directory = stat.S_ISDIR(os.fstat(sources[item.name]).st_mode)
    root = target = -1
    try:
        _make_mount_point(sources[outer], item.below, is_directory)
        root = open_path(f"{anchor}/{outer}")
        target = open_below(root, item.below)
        linux.mount(f"{anchor}/{item.name}", f"/proc/self/fd/{target}", None, _REC_BIND)
    except OSError as error:
        raise PlaceError(
            f"cannot show {item.source} at {item.below} within another volume: {error.strerror}"
        ) from error
    finally:
        for fd in (root, target):
            if fd >= 0:
                os.close(fd)


def _make_mount_point(root: int, relative: str, is_directory: bool) -> None:
    """Where it is missing; open to whom the root is open to."""
    try:
        os.close(open_below(root, relative))
    except FileNotFoundError:
        pass
    else:
        return
    mode = stat.S_IMODE(os.fstat(root).st_mode)
    parent, name = os.path.split(relative.rstrip("/"))
    directory = make_directories(root, relative if is_directory else parent, mode)
    try:
        if not is_directory:
            make_file(directory, name, 0o666)
    finally:
        os.close(directory)
