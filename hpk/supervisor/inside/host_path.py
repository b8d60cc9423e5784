"""hostPath: what is on the node, checked as its type asks, made where that says so.

Messages are upstream's: kubernetes pkg/volume/hostpath/host_path.go.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Callable

from hpk.model.errors import PermanentError
from hpk.model.plan import HostPathVolume
from hpk.supervisor.inside.sub_path import VolumeError, is_inside

_CHECKS: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def host_path_source(volume: HostPathVolume, forbidden: Iterable[str]) -> str:
    """The real path behind the volume on this node.

    :param forbidden: directories of ours, real paths: who writes there can forge pods.
    :raises VolumeError: it is not what its type says.
    :raises PermanentError: it lies where no volume may.
    """
    path = os.path.realpath(volume.path)
    check_allowed(volume, path, forbidden)
    try:
        _create(volume.kind, path)
        mode = os.stat(path).st_mode
    except OSError as error:
        wanted = _CHECKS.get(volume.kind)
        if isinstance(error, FileNotFoundError) and wanted:
            raise _failed(volume, f"{volume.path} is not {wanted[1]}") from error
        raise _failed(volume, f"{volume.path}: {error.strerror}") from error
    if volume.kind in _CHECKS:
        is_right, name = _CHECKS[volume.kind]
        if not is_right(mode):
            raise _failed(volume, f"{volume.path} is not {name}")
    return path


def check_allowed(volume: HostPathVolume, path: str, forbidden: Iterable[str]) -> None:
    """Refuse a real path in one of these directories."""
    for own in forbidden:
        if is_inside(path, own):
            raise PermanentError(
                f'volume "{volume.name}": {volume.path} is in {own}, which is HPK\'s own',
                remedy="keep the Pod's files elsewhere",
            )


def _create(kind: str, path: str) -> None:
    """Make what is missing; without a type a directory, as container runtimes do."""
    with contextlib.suppress(FileExistsError):
        if kind in ("", "DirectoryOrCreate"):
            os.makedirs(path, mode=0o755)
        elif kind == "FileOrCreate":
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


def _failed(volume: HostPathVolume, what: str) -> VolumeError:
    return VolumeError(
        "ContainerCreating",
        f'MountVolume.SetUp failed for volume "{volume.name}": hostPath type check failed: {what}',
    )
