"""The runtime that holds a container, and what is left in the container when that is to end."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from dataclasses import dataclass
from typing import Optional

from hpk.supervisor.base import linux
from hpk.supervisor.process import enter
from hpk.supervisor.process.hold import hold
from hpk.supervisor.process.pod_messages import Open


@dataclass
class HeldContainer:
    """A runtime and the pipes that hold its payload.

    :param user: (uid, gid) of its programs; None: as the runtime makes them.
    :param pause_pid: 0 until the payload runs.
    :param user_ns_fd: the user namespace of its programs, -1 until there is one; pid_ns_fd alike.
    :param process_1: of that PID namespace, as podinit sees it; 0 while there is none.
    """

    id: int
    runtime_pid: int
    stdin_fd: int
    stdout_fd: int
    user: Optional[tuple[int, int]] = None
    pause_pid: int = 0
    user_ns_fd: int = -1
    pid_ns_fd: int = -1
    process_1: int = 0
    closing_since_s: float = 0.0


def pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe that is closed with the stack."""
    ends = os.pipe2(os.O_CLOEXEC)
    for fd in ends:
        stack.callback(os.close, fd)
    return ends


def start_runtime(command: Open, stderr_fd: int) -> HeldContainer:
    """Fork and exec the runtime.

    :raises OSError: there are no more processes or descriptors.
    """
    with contextlib.ExitStack() as stack:
        stdin_read, stdin_write = pipe(stack)
        stdout_read, stdout_write = pipe(stack)
        parent = os.getpid()
        pid = os.fork()
        stack.pop_all()
    if pid == 0:
        try:
            linux.die_with_parent(parent)
            os.setsid()
            os.dup2(stdin_read, 0)
            os.dup2(stdout_write, 1)
            os.dup2(stderr_fd, 2)
            if command.holder is not None:
                os._exit(hold(command.holder, command.argv, dict(command.env)))
            enter.reset_signals()
            enter.shield_from_termination()
            enter.execute(command.argv, dict(command.env))
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(2, f"{error}\n".encode(errors="replace"))
            os._exit(127)
    os.close(stdin_read)
    os.close(stdout_write)
    user = None if command.uid is None else (command.uid, command.gid or 0)
    return HeldContainer(command.id, pid, stdin_write, stdout_read, user)


def read_pause_pid(fd: int) -> int:
    """What the pause program wrote; 0 where it never ran."""
    data = b""
    while len(data) < 8:
        chunk = os.read(fd, 8 - len(data))
        if not chunk:
            return 0
        data += chunk
    return int(struct.unpack("=q", data)[0])


def kill_inhabitants(pause_pid: int) -> None:
    """SIGKILL every process in the container's mount namespace but the pause program."""
    try:
        home = os.stat(f"/proc/{pause_pid}/ns/mnt")
    except OSError:
        return
    for _ in range(100):  # a fork bomb is killed by the end of the PID namespace instead
        found = False
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) in (pause_pid, os.getpid()):
                continue
            with contextlib.suppress(OSError):
                info = os.stat(f"/proc/{name}/ns/mnt")
                if (info.st_dev, info.st_ino) == (home.st_dev, home.st_ino):
                    os.kill(int(name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.005)
