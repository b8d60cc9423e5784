"""Node-local directories of a job: work space on disk, secrets on tmpfs.

``<local_root>/hpk-<uid>/<jobid>`` and ``/dev/shm/hpk-<uid>/<jobid>``, all 0700. A living job holds
a lock in each; directories whose lock nobody holds belonged to jobs that died, and are swept by the
next job of the same user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from dataclasses import dataclass

from hpk.durable import private_directory
from hpk.flock import exclusive_lock, open_lock, try_lock
from hpk.supervisor.base.job_log import log

_TMPFS_ROOT = "/dev/shm"
_LOCK = ".lock"


@dataclass(frozen=True)
class LocalDirs:
    """The two directories of one job on this node.

    :param work: overlays, program files; on disk.
    :param secret: volumes with credentials; on tmpfs where the node has one, else inside ``work``.
    :param lock_fds: held while the job lives.
    """

    work: str
    secret: str
    lock_fds: tuple[int, ...]

    def remove(self) -> None:
        """Remove both, and let the locks go."""
        for path in {self.secret, self.work}:
            remove_tree(path)
        for fd in self.lock_fds:
            os.close(fd)


def make_local_dirs(local_root: str, name: str) -> LocalDirs:
    """Sweep what dead jobs left here, then make and lock this job's directories.

    :param name: unique for what uses them, e.g. the job's id.
    :raises PermanentError: a directory of ours on this node belongs to somebody else.
    """
    user = f"hpk-{os.getuid()}"
    work, work_lock = _make(os.path.join(local_root, user), name)
    if not _is_tmpfs(_TMPFS_ROOT):
        log("no tmpfs for secrets: they rest in the job's directory on local disk", path=work)
        return LocalDirs(work, work, (work_lock,))
    secret, secret_lock = _make(os.path.join(_TMPFS_ROOT, user), name)
    return LocalDirs(work, secret, (work_lock, secret_lock))


def join_local_dirs(local_root: str, name: str) -> LocalDirs:
    """The directories that several processes of one step share on this node, made by the first.

    Each holds a shared lock; whoever has it exclusively knows that all others have ended.
    """
    user = f"hpk-{os.getuid()}"
    work, work_lock = _join(os.path.join(local_root, user), name)
    if not _is_tmpfs(_TMPFS_ROOT):
        return LocalDirs(work, work, (work_lock,))
    secret, secret_lock = _join(os.path.join(_TMPFS_ROOT, user), name)
    return LocalDirs(work, secret, (work_lock, secret_lock))


def _join(parent: str, name: str) -> tuple[str, int]:
    private_directory(parent)
    path = os.path.join(parent, name)
    while True:
        with exclusive_lock(os.path.join(parent, _LOCK)):
            if not os.path.lexists(path):
                _sweep(parent)
            private_directory(path)
            lock_fd = open_lock(os.path.join(path, _LOCK))
            if try_lock(lock_fd, shared=True):
                return path, lock_fd
        os.close(lock_fd)
        time.sleep(0.02)  # earlier processes of this name are clearing up


def _make(parent: str, name: str) -> tuple[str, int]:
    private_directory(parent)
    with exclusive_lock(os.path.join(parent, _LOCK)):
        _sweep(parent)
        path = os.path.join(parent, name)
        if os.path.lexists(path):
            path = f"{path}.{os.urandom(4).hex()}"
        private_directory(path)
        lock_fd = open_lock(os.path.join(path, _LOCK))
        try_lock(lock_fd)
    return path, lock_fd


def _sweep(parent: str) -> None:
    """Remove directories of dead jobs; called with the parent's lock held."""
    for entry in os.scandir(parent):
        if entry.name == _LOCK or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            fd = open_lock(os.path.join(entry.path, _LOCK))
        except OSError:
            continue
        try:
            if try_lock(fd):
                log("sweep what a dead job left", path=entry.path)
                remove_tree(entry.path)
        finally:
            os.close(fd)


def sweep_local_dirs(local_root: str) -> None:
    """Remove what dead jobs, and steps of this one that were killed, left on this node."""
    for root in (local_root, _TMPFS_ROOT):
        parent = os.path.join(root, f"hpk-{os.getuid()}")
        with contextlib.suppress(OSError), exclusive_lock(os.path.join(parent, _LOCK)):
            _sweep(parent)


def remove_tree(path: str) -> None:
    """Remove a tree of ours, made unreadable parts (overlay work directories) and all."""

    for directory, names, _ in os.walk(path):
        for name in names:
            child = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                info = os.lstat(child)
                if stat.S_ISDIR(info.st_mode) and info.st_mode & 0o700 != 0o700:
                    os.chmod(child, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _is_tmpfs(path: str) -> bool:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            kinds = [line.split()[2] for line in file if line.split()[1] == path]
    except OSError:
        return False
    return bool(kinds) and kinds[-1] == "tmpfs" and os.access(path, os.W_OK)
