"""Node-local directories of a job: work space on disk, secrets on tmpfs.

``ROOT/JOB`` on each, 0700, where a root is ``<local_root>/hpk-<uid>`` or ``/dev/shm/hpk-<uid>``, or
stands for one that somebody else has made first. A living job holds a lock in each; directories
whose lock nobody holds belonged to jobs that died, and are swept by the next job of the same user.
No path here holds a name that a user chose.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping

from hpk.durable import DIRECTORY_MODE, private_directory, read_file
from hpk.flock import exclusive_lock, open_lock, try_lock
from hpk.model.errors import PermanentError
from hpk.model.frozen import dataclass
from hpk.model.layout import AttemptLayout
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.paths import is_inside
from hpk.trees import remove_tree

_TMPFS_ROOT = "/dev/shm"
_LOCK = ".lock"
_DEAD = ".dead-"


@dataclass(frozen=True)
class NodeRoots:
    """Where the directories of jobs may be on this node, the best first.

    :param disks: directories for work space; ``memories`` those on tmpfs.
    :param token_path: a file that no other user can read, alike for all processes of a job.
    :param home: the user's; nothing is made in there that no job needs.
    """

    disks: tuple[str, ...]
    memories: tuple[str, ...]
    token_path: str
    home: str = ""

    @property
    def own(self) -> tuple[str, ...]:
        """All directories of this user that are or were a root; real paths."""
        places = dict.fromkeys((*self.disks, *self.memories, "/tmp", _TMPFS_ROOT))
        return tuple(dict.fromkeys(os.path.realpath(p) for d in places for p in _roots_in(d)))


def node_roots(layout: AttemptLayout, local_root: str, env: Mapping[str, str]) -> NodeRoots:
    """Those of a job.

    :param env: of the job: a site's TMPDIR is better than nothing.
    """
    runtime_dir = env.get("XDG_RUNTIME_DIR", "")
    disks = (local_root, env.get("TMPDIR", ""), runtime_dir)
    memories = (path for path in (_TMPFS_ROOT, runtime_dir) if _is_tmpfs(path))
    absolute = (path for path in disks if path.startswith("/"))
    home = env.get("HOME", "")
    return NodeRoots(tuple(dict.fromkeys(absolute)), tuple(memories), layout.token, home)


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

    @property
    def roots(self) -> tuple[str, ...]:
        """What they are in."""
        return tuple(dict.fromkeys(os.path.dirname(path) for path in (self.work, self.secret)))

    def new_directory(self) -> str:
        """A directory in ``work`` that nobody uses."""
        for number in itertools.count():
            path = os.path.join(self.work, str(number))
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, DIRECTORY_MODE)
                return path
        raise AssertionError("numbers end nowhere")

    def remove(self) -> None:
        """Remove both, and let the locks go."""
        for path in {self.secret, self.work}:
            clear_away(path)
        for fd in self.lock_fds:
            os.close(fd)


def make_local_dirs(roots: NodeRoots, name: str) -> LocalDirs:
    """Make and lock a job's directories.

    :param name: unique for what uses them, e.g. the job's id.
    :raises PermanentError: there is no place for them on this node.
    """
    work, work_lock = _make(_find_root(roots.disks, roots.token_path), name)
    if not roots.memories:
        log("no tmpfs for secrets: they rest in the job's directory on local disk", path=work)
        return LocalDirs(work, work, (work_lock,))
    secret, secret_lock = _make(_find_root(roots.memories, roots.token_path), name)
    return LocalDirs(work, secret, (work_lock, secret_lock))


def join_local_dirs(roots: NodeRoots, name: str) -> LocalDirs:
    """The directories that several processes of one step share on this node, made by the first.

    Each holds a shared lock; whoever has it exclusively knows that all others have ended.
    """
    work, work_lock = _join(_find_root(roots.disks, roots.token_path), name)
    if not roots.memories:
        return LocalDirs(work, work, (work_lock,))
    secret, secret_lock = _join(_find_root(roots.memories, roots.token_path), name)
    return LocalDirs(work, secret, (work_lock, secret_lock))


def make_roots(roots: NodeRoots) -> None:
    """Make the roots that are missing, so that they can be hidden: a later job would make them in
    what a container of this one sees."""
    home = os.path.realpath(roots.home) if roots.home else ""
    for place in (*roots.disks, *roots.memories):
        if home and is_inside(os.path.realpath(place), home):
            continue
        with contextlib.suppress(OSError):
            os.mkdir(os.path.join(place, _user()), DIRECTORY_MODE)


def _find_root(places: Iterable[str], token_path: str) -> str:
    why = "this node has no directory for them"
    for place in places:
        try:
            return _root_in(place, token_path)
        except OSError as error:
            why = f"{place}: {error.strerror}"
    raise PermanentError(
        f"cannot make the pod's directories on this node: {why}",
        remedy="have /tmp writable there, or TMPDIR of jobs set to a directory that is",
    )


def _root_in(place: str, token_path: str) -> str:
    """A directory of ours in a place where anybody may have taken our name.

    One that was made in such a case is used from then on. Its name is of the job's secret: whoever
    would take it first cannot guess it, and all ranks of a node come to the same.
    """
    plain = os.path.join(place, _user())
    if _make_ours(plain):
        return plain
    log("the directory is somebody else's: make another", path=plain)
    for other in _roots_in(place):
        if _make_ours(other):
            return other
    import hashlib  # brings all of OpenSSL, and is hardly ever needed

    digest = hashlib.sha256(read_file(token_path)).hexdigest()
    for length in (6, 12):
        if _make_ours(f"{plain}-{digest[:length]}"):
            return f"{plain}-{digest[:length]}"
    raise FileExistsError(17, "somebody else's directories have all our names")


def _user() -> str:
    return f"hpk-{os.getuid()}"


def _make_ours(path: str) -> bool:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, DIRECTORY_MODE)
    if not _is_ours(path):
        return False
    if os.lstat(path).st_mode & 0o077:
        os.chmod(path, DIRECTORY_MODE)
    return True


def _is_ours(path: str) -> bool:
    info = os.lstat(path)
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def _roots_in(place: str) -> tuple[str, ...]:
    """The directories of ours there that were made as roots, sorted."""
    user = _user()
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        named = sorted(e.path for e in entries if e.name == user or e.name.startswith(f"{user}-"))
        return tuple(path for path in named if _is_ours(path))
    return ()


def _join(parent: str, name: str) -> tuple[str, int]:
    path = os.path.join(parent, name)
    while True:
        with exclusive_lock(os.path.join(parent, _LOCK)):
            private_directory(path)
            lock_fd = open_lock(os.path.join(path, _LOCK))
            if try_lock(lock_fd, shared=True):
                return path, lock_fd
        os.close(lock_fd)
        time.sleep(0.02)  # earlier processes of this name are clearing up


def _make(parent: str, name: str) -> tuple[str, int]:
    with exclusive_lock(os.path.join(parent, _LOCK)):
        path = os.path.join(parent, name)
        if os.path.lexists(path):
            path = f"{path}.{os.urandom(4).hex()}"
        private_directory(path)
        lock_fd = open_lock(os.path.join(path, _LOCK))
        try_lock(lock_fd)
    return path, lock_fd


def sweep_local_dirs(roots: NodeRoots) -> None:
    """Remove what dead jobs, and steps of this one that were killed, left on this node.

    Takes as long as what they left is big, and holds up no job that starts meanwhile.
    """
    for root in roots.own:
        for path, lock_fd in _put_aside(root):
            log("sweep what a dead job left", path=path)
            clear_away(path)
            os.close(lock_fd)


def _put_aside(root: str) -> list[tuple[str, int]]:
    """Rename the directories of dead jobs, so that their names are free; each with its lock, by
    which all others leave it to us."""
    found = []
    with contextlib.suppress(OSError), exclusive_lock(os.path.join(root, _LOCK)):
        for path in _directories(root):
            with contextlib.suppress(OSError):
                lock_fd = open_lock(os.path.join(path, _LOCK))
                if not try_lock(lock_fd):
                    os.close(lock_fd)
                    continue
                aside = os.path.join(root, f"{_DEAD}{os.urandom(6).hex()}")
                os.rename(path, aside)
                found.append((aside, lock_fd))
    return found


def _directories(root: str) -> Iterator[str]:
    with os.scandir(root) as entries:
        found = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return iter(found)


def clear_away(path: str) -> None:
    """Remove a tree of ours. Whatever becomes of it, our caller has more to do: the pod's last
    record to report, the next tree to remove."""
    try:
        is_gone = remove_tree(path)
    except Exception as error:
        log("cannot remove a directory", path=path, error=repr(error))
    else:
        if not is_gone:
            log("something is left of a directory", path=path)


def _is_tmpfs(path: str) -> bool:
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            kinds = [line.split()[2] for line in file if line.split()[1] == path]
    except OSError:
        return False
    return bool(kinds) and kinds[-1] == "tmpfs" and os.access(path, os.W_OK)
