"""subPath: a part of a volume, never anything outside it, whatever links the volume holds.

Reasons and messages are upstream's: kubernetes pkg/kubelet/kubelet_pods.go (makeMounts).
"""

from __future__ import annotations

import os
import stat

CONFIG_ERROR = "CreateContainerConfigError"


class VolumeError(Exception):
    """A volume is not as the Pod wants it; this may change.

    :param reason: for the container's ``state.waiting``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_inside(path: str, directory: str) -> bool:
    """Whether a real path is a directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def sub_path_source(root: str, sub_path: str, *, create: bool) -> str:
    """The real path of a part of a volume.

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
        make_directories(root, os.path.relpath(target, root))
    except OSError as error:
        raise VolumeError(
            CONFIG_ERROR, f"failed to create subPath directory {sub_path!r}: {error.strerror}"
        ) from error
    return target


def make_directories(root: str, relative: str) -> None:
    """Make directories below ``root`` that are missing, open to whom the root is open to.

    :raises OSError: a part of it is no directory, or a link.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, flags)
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        for part in relative.split("/"):
            try:
                os.mkdir(part, dir_fd=fd)
                made = True
            except FileExistsError:
                made = False
            below = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = below
            if made:
                os.fchmod(fd, mode)
    finally:
        os.close(fd)
