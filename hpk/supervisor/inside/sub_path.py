"""subPath: a part of a volume, never anything outside it, whatever links the volume holds.

Reasons and messages are upstream's: kubernetes pkg/kubelet/kubelet_pods.go (makeMounts).
"""

from __future__ import annotations

import os
import stat

from hpk.supervisor.base.paths import is_inside, make_directories, open_path

CONFIG_ERROR = "CreateContainerConfigError"


class VolumeError(Exception):
    """A volume is not as the Pod wants it; this may change.

    :param reason: for the container's ``state.waiting``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def sub_path_source(root: str, sub_path: str, *, create: bool) -> str:
    """The real path of a part of a volume; nobody may follow a link in it that appears later.

    :param root: real path of the volume.
    :param create: make a directory of it where it is missing.
    :raises VolumeError: it is not there, or outside.
    """
    target = os.path.realpath(os.path.join(root, sub_path))
    if not is_inside(target, root):
        raise VolumeError(CONFIG_ERROR, f"subPath {sub_path!r} leads out of its volume")
    if os.path.lexists(target):
        return target
    if not create:
        raise VolumeError(CONFIG_ERROR, f"subPath {sub_path!r} is not in its volume")
    try:
        _make(root, os.path.relpath(target, root))
    except OSError as error:
        raise VolumeError(
            CONFIG_ERROR, f"failed to create subPath directory {sub_path!r}: {error.strerror}"
        ) from error
    return target


def _make(root: str, relative: str) -> None:
    """Directories that are missing, open to whom the root is open to."""
    directory = open_path(root)
    try:
        mode = stat.S_IMODE(os.fstat(directory).st_mode)
        os.close(make_directories(directory, relative, mode))
    finally:
        os.close(directory)
