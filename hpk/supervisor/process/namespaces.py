"""The namespaces of a container's programs: the PIDs they see, and who they are.

A container's program is process 1 of its PID namespace, as under any runtime: it sees and signals
what it has started and nothing else, it gets no signal that it has no handler for, and the kernel
ends with it everything in there. The runtime and its FUSE servers are outside.

Both namespaces must belong to the container's root, and who is to make one for him has to be in the
container first, from where there is no way back: so a process in between does, and is gone when its
parent has the namespace's descriptor. Every caller has one thread, and is root of a user namespace
around the container's.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from hpk.supervisor.base import linux
from hpk.supervisor.base.job_log import log


def make_user_namespace(join: Callable[[], None], uid: int, gid: int) -> int:
    """A descriptor of a new user namespace, in which the container's root is this user.

    :param join: enters the container's namespaces.
    :raises OSError: the kernel refuses, or there are no more processes or descriptors.
    """

    def make() -> str:
        join()
        outside_uid, outside_gid = os.getuid(), os.getgid()
        linux.unshare(linux.CLONE_NEWUSER)
        linux.map_single_id(uid, outside_uid, gid, outside_gid)
        return ""

    made = _make_in_between(make, "user")
    if made is None:
        raise AssertionError("nothing was forked there")
    if made.namespace < 0:
        raise OSError(f"cannot become its user: {made.why}")
    return made.namespace


def fork_process_1(join: Callable[[], None]) -> tuple[int, int]:
    """Fork process 1 of a new PID namespace; in the parent its pid here, and a descriptor of the
    namespace; in the child 0, and none.

    Only the container's root can mount a /proc of it: the kernel lets nobody else through the
    container's FUSE mounts.

    :param join: enters the container's other namespaces.
    :raises OSError: as above.
    """

    known_read, known_write = os.pipe2(os.O_CLOEXEC)

    def make() -> Optional[str]:
        join()
        linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            return str(pid)
        # Whoever could not be told of us must not find us running all the same.
        os.close(known_write)
        if not os.read(known_read, 1):
            os._exit(1)
        return None

    try:
        made = _make_in_between(make, "pid_for_children")
        if made is None:
            return 0, -1
        if made.namespace < 0:
            raise OSError(f"cannot make a PID namespace: {made.why}")
        os.write(known_write, b"\0")
        return int(made.said), made.namespace
    finally:
        os.close(known_read)
        with contextlib.suppress(OSError):  # the child has closed its own
            os.close(known_write)


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


@dataclass(frozen=True)
class _Made:
    """
    :param said: by whoever made it.
    :param namespace: a descriptor, -1 where there is none, and ``why`` says why.
    """

    said: str
    namespace: int
    why: str = ""


def _make_in_between(make: Callable[[], Optional[str]], kind: str) -> Optional[_Made]:
    """Have a process make a namespace. None in a process that ``make`` has forked there, and in
    which it so returns None."""
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    try:
        maker = os.fork()
    except OSError:
        os.close(told_read)
        os.close(told_write)
        raise
    if maker == 0:
        try:
            said = make()
            if said is None:
                return None
            os.write(told_write, b"+" + said.encode())
            while True:  # the end of what it forked wakes it, and its namespaces end with it
                signal.pause()
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(told_write, b"-" + (str(error) or repr(error)).encode(errors="replace")[:4095])
        os._exit(1)
    os.close(told_write)
    try:
        with os.fdopen(told_read, "rb", 0) as told:
            answer = told.read(4096)
        text = answer[1:].decode(errors="replace")
        if answer[:1] != b"+":
            return _Made("", -1, text or "it was killed")
        try:
            path = f"/proc/{maker}/ns/{kind}"
            return _Made(text, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            return _Made(text, -1, str(error))
    finally:
        os.kill(maker, signal.SIGKILL)
        os.waitpid(maker, 0)
