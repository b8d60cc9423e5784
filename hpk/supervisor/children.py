"""The processes a container is made of: the runtime that holds it, the programs that enter it."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time
from dataclasses import dataclass
from typing import Optional

from hpk.supervisor import enter, linux, pid_namespace, switch_user
from hpk.supervisor.capabilities import drop_capabilities
from hpk.supervisor.hold import hold
from hpk.supervisor.pod_messages import Open, Run
from hpk.supervisor.seccomp import root_emulation


@dataclass
class HeldContainer:
    """A runtime and the pipes that hold its payload.

    :param user: (uid, gid) of its programs; None: as the runtime makes them.
    :param pause_pid: 0 until the payload runs.
    :param user_ns_fd: the user namespace of its programs, -1 until there is one; pid_ns_fd alike.
    """

    id: int
    runtime_pid: int
    stdin_fd: int
    stdout_fd: int
    user: Optional[tuple[int, int]] = None
    pause_pid: int = 0
    user_ns_fd: int = -1
    pid_ns_fd: int = -1
    closing_since_s: float = 0.0


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
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
        stdin_read, stdin_write = _pipe(stack)
        stdout_read, stdout_write = _pipe(stack)
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


def make_user_namespace(container: HeldContainer) -> None:
    """Make the user namespace of the container's programs, where they need one.

    It lies inside the container's own, in which the runtime runs as root: so everything that root
    can write there, the image with its writable layer, belongs to the user they ask for.

    :raises OSError: the kernel refuses.
    """
    if container.user is None or container.user_ns_fd >= 0:
        return
    with contextlib.ExitStack() as stack:
        made_read, made_write = _pipe(stack)
        parent = os.getpid()
        pid = os.fork()
        stack.pop_all()
    if pid == 0:
        try:
            linux.die_with_parent(parent)
            enter.join_namespaces(container.pause_pid)
            uid, gid = os.getuid(), os.getgid()
            linux.unshare(linux.CLONE_NEWUSER)
            linux.map_single_id(container.user[0], uid, container.user[1], gid)
            os.write(made_write, b"\0")
            signal.pause()
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(made_write, str(error).encode(errors="replace")[:4096] or b"?")
        os._exit(1)
    os.close(made_write)
    with os.fdopen(made_read, "rb", 0) as made:
        said = made.read(4096)
    try:
        if said != b"\0":
            raise OSError(f"cannot become its user: {said.decode(errors='replace')}")
        container.user_ns_fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def read_pause_pid(fd: int) -> int:
    """What the pause program wrote; 0 where it never ran."""
    data = b""
    while len(data) < 8:
        chunk = os.read(fd, 8 - len(data))
        if not chunk:
            return 0
        data += chunk
    return int(struct.unpack("=q", data)[0])


def start_program(
    command: Run, container: Optional[HeldContainer], fds: tuple[int, ...]
) -> tuple[int, int]:
    """Fork what becomes the program; its pid, and what tells why it could not (see below).

    :raises OSError: there are no more processes or descriptors, or the container has ended.
    """
    with contextlib.ExitStack() as stack:
        error_read, error_write = _pipe(stack)
        parent = os.getpid()
        is_process_1 = False
        if container is None or command.shares_processes:
            pid = os.fork()
        elif container.pid_ns_fd >= 0:
            pid = pid_namespace.fork_into(container.pid_ns_fd)
        else:
            is_process_1 = True
            pause_pid = container.pause_pid
            pid, container.pid_ns_fd = pid_namespace.fork_process_1(lambda: _join(pause_pid))
        stack.pop_all()
    if pid == 0:
        _become_program(command, container, fds, error_write, parent, is_process_1)
    os.close(error_write)
    return pid, error_read


def _join(pause_pid: int) -> None:
    enter.set_oom_score_adj(enter.MOST_KILLABLE)
    enter.join_namespaces(pause_pid)


def _become_program(
    command: Run,
    container: Optional[HeldContainer],
    fds: tuple[int, ...],
    error_fd: int,
    parent: int,
    is_process_1: bool,
) -> None:
    """What the forked child of a Run does; never returns.

    :param container: to run in, None for the host.
    :param error_fd: told why the program cannot be started; closed by execve where it can.
    :param is_process_1: of the container's PID namespace; it is in the others already.
    """
    try:
        os.setsid()
        if not is_process_1:
            enter.set_oom_score_adj(enter.MOST_KILLABLE)
        for number, fd in enumerate(fds[:3]):
            os.dup2(fd, number)
        if container is not None:
            if is_process_1:
                linux.mount("proc", "/proc", "proc", linux.PROC_FLAGS)
            else:
                enter.join_namespaces(container.pause_pid)
            os.umask(0o022)
            enter.make_links((link.target, link.source) for link in command.links)
            enter.change_directory(command.working_dir)
            if command.emulates_root:
                switch_user.take_their_places()
            if container.user_ns_fd >= 0:
                linux.setns(container.user_ns_fd, linux.CLONE_NEWUSER)
            drop_capabilities(command.dropped_capabilities)
            linux.forbid_new_privileges()
            if command.emulates_root:
                linux.filter_system_calls(root_emulation(os.uname().machine))
        if container is None:  # in a container we end with podinit's PID namespace
            linux.die_with_parent(parent)
        enter.reset_signals()
        enter.execute(command.argv, dict(command.env))
    except BaseException as error:  # a forked child must never return into its parent's code
        os.write(error_fd, str(error).encode(errors="replace")[:32768])
    os._exit(127)


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
