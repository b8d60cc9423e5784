"""The namespaces of a container's programs: the PIDs they see, who they are, what they may mount.

A container's program is process 1 of its PID namespace, as under any runtime: it sees and signals
what it has started and nothing else, it gets no signal that it has no handler for, and the kernel
ends with it everything in there. The runtime and its FUSE servers are outside.

Its user namespace lies below the one that the runtime has made, for root too. So no capability in
there is one over the container's mounts: what is mounted read-only stays so, whoever the program
is, and the runtime's processes cannot be looked into. Who may mount gets a copy of the mounts, in
which the kernel has locked all that came from outside (mount_namespaces(7)).

The first program makes them itself, and waits until its parent has their descriptors, by which the
later ones join. Everything here runs in processes of one thread: joining a user namespace is
refused to others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.supervisor.base import linux
from hpk.supervisor.base.job_log import log

# User first: it gives the right to join the others. Each only where it differs from ours: joining
# one that the container shares with the host (IPC) is refused.
_JOINED = (
    ("user", linux.CLONE_NEWUSER),
    ("ipc", linux.CLONE_NEWIPC),
    ("uts", linux.CLONE_NEWUTS),
    ("net", linux.CLONE_NEWNET),
    ("cgroup", linux.CLONE_NEWCGROUP),
    ("mnt", linux.CLONE_NEWNS),
)
_NS_GET_PARENT = 0xB702  # linux/nsfs.h
_GO, _NO = b"\0", b"n"


def join_namespaces(pid: int) -> None:
    """Enter the namespaces of a process that are not ours already, but for that of its pids; its
    root becomes ours."""
    opened = []
    for name, kind in _JOINED:
        path = f"/proc/{pid}/ns/{name}"
        try:
            theirs, ours = os.stat(path), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/ns/{name}"):
                raise
            continue
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            opened.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind))
    for fd, kind in opened:
        linux.setns(fd, kind)
        os.close(fd)


@dataclass(frozen=True)
class First:
    """The first program of a container.

    :param pid: as its parent sees it.
    :param namespaces: descriptors of its namespaces, by their names in /proc.
    """

    pid: int
    namespaces: dict[str, int]


class Beginning:
    """A first program that makes its namespaces. It looks at the image meanwhile, which may lie on
    a file system that hangs: whoever has other things to do waits for ``fd`` to be readable."""

    def __init__(self, child: int, told: _Pipe, known: _Pipe, kinds: tuple[str, ...]) -> None:
        self._child = child
        self._told = told
        self._known = known
        self._kinds = kinds
        self._text = b""

    @property
    def fd(self) -> int:
        """Readable when it has said something."""
        return self._told.read

    def hear(self) -> bool:
        """Read what it says; whether that was all. Waits for it."""
        chunk = os.read(self.fd, 4096)
        self._text += chunk
        return not chunk

    def finish(self, *, unless: str = "") -> First:
        """Let it run, when it has said all.

        :param unless: why it must not.
        :raises OSError: it does not run: for that, or because the kernel refuses, or there are no
            more descriptors.
        """
        with self._told, self._known:
            try:
                first = self._first(unless)
            except OSError:
                # Not by the end of the pipe alone: others that were forked since may hold it.
                with contextlib.suppress(OSError):
                    os.write(self._known.write, _NO)
                raise
            os.write(self._known.write, _GO)
            return first

    def _first(self, unless: str) -> First:
        pid, why = _parse(self._text)
        if unless:
            raise OSError(unless)
        if why:
            raise OSError(f"cannot make the container's namespaces: {why}")
        pid = pid or self._child
        return First(pid, _open_namespaces(pid, self._kinds))


def fork_first(
    join: Callable[[], None], make: Callable[[], None], kinds: tuple[str, ...], *, own_pids: bool
) -> Optional[Beginning]:
    """Fork the first program of a container. Whoever does so reaps its children.

    :param join: enters the container's namespaces.
    :param make: makes the program's own in there, but for that of its pids.
    :param kinds: which descriptors to keep.
    :param own_pids: it is process 1 of a PID namespace. That belongs to the container's root, who
        alone can mount a /proc of it: the kernel lets nobody else through the container's FUSE
        mounts.
    :returns: None in the program, when it is to run.
    :raises OSError: there are no more processes or descriptors.
    """
    with contextlib.ExitStack() as closing:
        told, known = closing.enter_context(_Pipe()), closing.enter_context(_Pipe())
        child = os.fork()
        if child == 0:
            try:
                known.close_write()
                _become_first(join, make, told.write, own_pids=own_pids)
                told.close_write()
                # Whoever could not be told of us must not find us running all the same.
                if os.read(known.read, 1) == _GO:
                    return None
            except BaseException as error:  # nor may it return into its parent's code
                log("the first program failed", error=repr(error))
            os._exit(1)
        closing.pop_all()
        told.close_write()
        return Beginning(child, told, known, kinds)


def _become_first(
    join: Callable[[], None], make: Callable[[], None], told: int, *, own_pids: bool
) -> None:
    """Return in the first program. A process in between, which has entered the container to make
    its PID namespace, has no way back and ends."""
    try:
        join()
        if own_pids:
            linux.unshare(linux.CLONE_NEWPID)
            pid = os.fork()
            if pid:
                os.write(told, f"pid {pid}\0".encode())
                os._exit(0)
        make()
        os.write(told, b"ready\0")
    except BaseException as error:  # a forked child must never return into its parent's code
        os.write(told, f"no {str(error) or repr(error)}\0".encode(errors="replace")[:4096])
        os._exit(1)


def _parse(text: bytes) -> tuple[int, str]:
    """The pid, 0 where none was told; why there is no first program, "" where there is."""
    pid, why = 0, "it was killed"
    for word in text.decode(errors="replace").split("\0"):
        kind, _, rest = word.partition(" ")
        if kind == "pid":
            pid = int(rest)
        elif kind in ("ready", "no"):
            why = rest
    return pid, why


def _open_namespaces(pid: int, kinds: tuple[str, ...]) -> dict[str, int]:
    opened: dict[str, int] = {}
    try:
        for kind in kinds:
            opened[kind] = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        for fd in opened.values():
            os.close(fd)
        raise
    return opened


class _Pipe:
    """Both of its ends are closed with the block, if not before."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> _Pipe:
        return self

    def close_write(self) -> None:
        """The other end then reads to the end of what everybody else writes."""
        if self.write >= 0:
            os.close(self.write)
            self.write = -1

    def __exit__(self, *_: object) -> None:
        self.close_write()
        os.close(self.read)


def become_user(uid: int, gid: int, *, can_mount: bool) -> None:
    """Be this user in a new user namespace, who is whoever we are outside; and with mounts of its
    own, all that are there locked as they are.

    :raises OSError: the kernel refuses.
    """
    outside_uid, outside_gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER)
    linux.map_single_id(uid, outside_uid, gid, outside_gid)
    if can_mount:
        linux.unshare(linux.CLONE_NEWNS)


def fork_into(namespace: int) -> int:
    """Fork into a PID namespace, given by a descriptor; the child's pid here, 0 in the child.

    :raises OSError: there are no more processes or descriptors, or its process 1 has ended.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    pid = -1
    try:
        linux.setns(namespace, linux.CLONE_NEWPID)
        pid = os.fork()
    finally:
        if pid != 0:
            _come_back(own)
        os.close(own)
    return pid


def _come_back(own: int) -> None:
    try:
        linux.setns(own, linux.CLONE_NEWPID)
    except OSError as error:  # what is forked from now on would be in somebody's container
        log("cannot leave a PID namespace", error=error)
        os._exit(1)


def signal_process_1(namespace: int, number: int) -> None:
    """Signal process 1 of a PID namespace from within: the kernel drops what that has no handler
    for, SIGKILL too.

    :raises OSError: as above.
    """
    pid = fork_into(namespace)
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.kill(1, number)
        os._exit(0)
    os.waitpid(pid, 0)


def is_below(pid: int, namespace: int) -> bool:
    """Whether a process is in a user namespace, given by a descriptor, or in one below it."""
    wanted = os.fstat(namespace)
    try:
        os.stat(f"/proc/{pid}/ns/mnt")  # one that has ended and is not yet reaped has none
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while True:
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
                above = fcntl.ioctl(fd, _NS_GET_PARENT)
                os.close(fd)
                fd = above
        finally:
            os.close(fd)
    except OSError:  # it has ended, or the one above is not ours to see
        return False
