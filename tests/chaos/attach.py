"""``python -m tests.chaos.attach MOUNTPOINT PID PATH``: show a mount of this machine in a host.

Mounts do not travel between the mount namespaces of a lab's hosts; a clone of the mount, taken here
and put down there, does (open_tree(2), move_mount(2)). PID is process 1 of the host.
"""

from __future__ import annotations

import ctypes
import os
import sys

_OPEN_TREE = 428
_MOVE_MOUNT = 429
_AT_FDCWD = -100
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CLONE_NEWNS = 0x00020000
_libc = ctypes.CDLL(None, use_errno=True)


def main(mountpoint: str, pid: str, path: str) -> None:
    """:raises OSError: the kernel refuses a step."""
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, mountpoint.encode(), flags))
    _checked(_libc.setns(namespace, _CLONE_NEWNS))
    target = (_AT_FDCWD, path.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    _checked(_libc.syscall(_MOVE_MOUNT, tree, b"", *target))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
