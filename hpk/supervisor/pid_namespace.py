"""A PID namespace for each container.

A container's program is process 1 of it, as under any runtime: it sees and signals what it has
started and nothing else, it gets no signal that it has no handler for, and the kernel ends with it
everything in there. The runtime and its FUSE servers are outside.

Every caller has one thread and is root of the user namespace that owns the PID namespace it is in.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from hpk.supervisor import linux


def fork_process_1(join: Callable[[], None]) -> tuple[int, int]:
    """Fork process 1 of a new PID namespace; in the parent its pid here, and a descriptor of the
    namespace; in the child 0, and none.

    A process in between makes the namespace, so that it belongs to the container's root: only he
    can mount a /proc of it, for the kernel lets nobody else see the container's FUSE mounts. It is
    gone when this returns, and the child is ours.

    :param join: enters the container's other namespaces.
    :raises OSError: there are no more processes, namespaces or descriptors.
    """
    told_read, told_write = os.pipe2(os.O_CLOEXEC)
    try:
        maker = os.fork()
    except OSError:
        os.close(told_read)
        os.close(told_write)
        raise
    if maker == 0:
        try:
            join()
            linux.unshare(linux.CLONE_NEWPID)
            pid = os.fork()
            if pid == 0:
                return 0, -1
            os.write(told_write, str(pid).encode())
            signal.pause()
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(told_write, (str(error) or repr(error)).encode(errors="replace")[:4096])
        os._exit(1)
    os.close(told_write)
    with os.fdopen(told_read, "rb", 0) as told:
        said = told.read(4096)
    try:
        if not said.isdigit():
            raise OSError(f"cannot make a PID namespace: {said.decode(errors='replace')}")
        path = f"/proc/{maker}/ns/pid_for_children"
        try:
            return int(said), os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            os.kill(int(said), signal.SIGKILL)
            raise
    finally:
        os.kill(maker, signal.SIGKILL)
        os.waitpid(maker, 0)


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
            linux.setns(own, linux.CLONE_NEWPID)
        os.close(own)
    return pid


def signal_process_1(namespace: int, number: int) -> None:
    """Signal process 1 of a namespace from within: the kernel drops what that has no handler for,
    SIGKILL too.

    :raises OSError: as fork_into.
    """
    pid = fork_into(namespace)
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.kill(1, number)
        os._exit(0)
    os.waitpid(pid, 0)
