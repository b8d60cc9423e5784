"""hostPath: what is on the node, checked as its type asks, made where that says so.

Messages are upstream's: kubernetes pkg/volume/hostpath/host_path.go; for one without a type, which
upstream leaves to the runtime, those of containerd (internal/cri/opts/spec_linux_opts.go).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Callable

from hpk.model.errors import PermanentError
from hpk.model.plan import HostPathVolume
from hpk.supervisor.base.paths import is_inside, make_directories, make_file, open_path
from hpk.supervisor.inside.sub_path import VolumeError

_KINDS: dict[str, Callable[[int], bool]] = {
    "Directory": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}
_WORDS = {
    "Directory": "directory",
    "File": "file",
    "Socket": "socket file",
    "CharDevice": "character device",
    "BlockDevice": "block device",
}
_UNKNOWN = "only recognise file, directory, socket, block device and character device"


def host_path_source(volume: HostPathVolume, forbidden: Iterable[str]) -> str:
    """The real path behind the volume on this node; nobody may follow a link in it that appears
    later.

    :param forbidden: directories of ours, real paths: who writes there can forge pods.
    :raises VolumeError: it is not what its type says.
    :raises PermanentError: it lies where no volume may.
    """
    path = os.path.realpath(volume.path)
    check_allowed(volume, path, forbidden)
    try:
        is_missing = _is_missing(volume.kind, path)
    except OSError as error:
        raise _failed(volume, "stat", error) from error
    try:
        if is_missing:
            _create(volume.kind, path)
    except OSError as error:
        verb = "open" if volume.kind == "FileOrCreate" else "mkdir"
        raise _failed(volume, verb, error) from error
    if not volume.kind:
        try:
            _mode(path)
        except OSError as error:
            raise _failed(volume, "stat", error) from error
        return path
    _check_type(volume, path)
    return path


def _check_type(volume: HostPathVolume, path: str) -> None:
    wanted = volume.kind[: -len("OrCreate")] if volume.kind.endswith("OrCreate") else volume.kind
    try:
        mode = _mode(path)
        found = next((name for name, is_it in _KINDS.items() if is_it(mode)), "")
        why = _UNKNOWN
    except FileNotFoundError:
        found, why = "", f'path "{volume.path}" does not exist'
    except OSError as error:
        found, why = "", f"stat {volume.path}: {_reason(error)}"
    if found == wanted:
        return
    is_not = f"{volume.path} is not a {_WORDS[wanted]}"
    if found:
        raise _not_set_up(volume, f"hostPath type check failed: {is_not}, it's a {found}")
    raise _not_set_up(
        volume, f"hostPath type check failed, {is_not}, unable to determine its type: {why}"
    )


def _mode(path: str) -> int:
    fd = open_path(path)
    try:
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)


def check_allowed(volume: HostPathVolume, path: str, forbidden: Iterable[str]) -> None:
    """Refuse a real path in one of these directories."""
    for own in forbidden:
        if is_inside(path, own):
            raise PermanentError(
                f'volume "{volume.name}": {volume.path} is in {own}, which is HPK\'s own',
                remedy="keep the Pod's files elsewhere",
            )


def _is_missing(kind: str, path: str) -> bool:
    """Whether something is to be made; to upstream what it cannot look at is missing, to
    containerd it is not.

    :raises OSError: nobody can tell.
    """
    if kind and not kind.endswith("OrCreate"):
        return False
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        if kind:
            return True
        raise
    return False


def _create(kind: str, path: str) -> None:
    """Make a file, or a directory: without a type too, as container runtimes do."""
    root = open_path("/")
    try:
        if kind != "FileOrCreate":
            os.close(make_directories(root, path, 0o755))
            return
        directory, name = os.path.split(path)
        parent = open_path(directory)
        try:
            make_file(parent, name, 0o644)
        finally:
            os.close(parent)
    finally:
        os.close(root)


def _failed(volume: HostPathVolume, verb: str, error: OSError) -> VolumeError:
    said = f"{verb} {volume.path}: {_reason(error)}"
    if volume.kind:
        return _not_set_up(volume, said)
    return VolumeError(
        "CreateContainerError", f'failed to generate spec: failed to {verb} "{volume.path}": {said}'
    )


def _not_set_up(volume: HostPathVolume, why: str) -> VolumeError:
    message = f'MountVolume.SetUp failed for volume "{volume.name}" : {why}'
    return VolumeError("ContainerCreating", message)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
