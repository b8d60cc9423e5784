"""The runtime that holds a container, and what is left in the container when that is to end."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.supervisor.base import linux
from hpk.supervisor.process import execution
from hpk.supervisor.process.enter import Enter
from hpk.supervisor.process.hold import hold
from hpk.supervisor.process.places import Places
from hpk.supervisor.process.placing import PLACES_STATUS, PlaceError, show_places
from hpk.supervisor.process.pod_messages import Open


@dataclass
class HeldContainer:
    """A runtime and the pipes that hold its payload.

    :param user: (uid, gid) of its programs.
    :param enter: None until the payload runs.
    """

    id: int
    runtime_pid: int
    stdin_fd: int
    stdout_fd: int
    user: tuple[int, int]
    enter: Optional[Enter] = None
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
            if command.places is not None:
                _show(command.places)
            if command.holder is not None:
                os._exit(hold(command.holder, command.argv, dict(command.env)))
            execution.reset_signals()
            execution.shield_from_termination()
            execution.execute(command.argv, dict(command.env))
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(2, f"{error}\n".encode(errors="replace"))
            os._exit(127)
    os.close(stdin_read)
    os.close(stdout_write)
    return HeldContainer(command.id, pid, stdin_write, stdout_read, (command.uid, command.gid))


def _show(places: Places) -> None:
    try:
        show_places(places)
    except PlaceError as error:
        os.write(2, f"{error}\n".encode(errors="replace"))
        os._exit(PLACES_STATUS)


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
