"""The programs that enter a container, and those that run beside it on the host."""

from __future__ import annotations

import contextlib
import os
from typing import Optional

from hpk.supervisor.base import linux
from hpk.supervisor.process import enter, namespaces, switch_user
from hpk.supervisor.process.capabilities import drop_capabilities
from hpk.supervisor.process.pod_messages import Run
from hpk.supervisor.process.runtime_process import HeldContainer, pipe
from hpk.supervisor.process.seccomp.emulation import root_emulation


def start_program(
    command: Run, container: Optional[HeldContainer], fds: tuple[int, ...]
) -> tuple[int, int]:
    """Fork what becomes the program; its pid, and what tells why it could not (see below).

    :param container: to run in, None for the host.
    :param fds: standard input, output and error.
    :raises OSError: there are no more processes or descriptors, the kernel refuses a namespace, or
        the container has ended.
    """
    with contextlib.ExitStack() as stack:
        error_read, error_write = pipe(stack)
        parent = os.getpid()
        is_process_1 = False
        if container is None:
            pid = os.fork()
        else:
            pid, is_process_1 = _fork_for(command, container)
        stack.pop_all()
    if pid == 0:
        try:
            os.setsid()
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number)
            if container is None:
                enter.set_oom_score_adj(enter.MOST_KILLABLE)
                linux.die_with_parent(parent)
            else:
                # It ends with podinit as all of its PID namespace does.
                _settle(command, container, is_process_1)
            enter.reset_signals()
            enter.execute(command.argv, dict(command.env))
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(error_write, str(error).encode(errors="replace")[:32768])
        os._exit(127)
    os.close(error_write)
    return pid, error_read


def _fork_for(command: Run, container: HeldContainer) -> tuple[int, bool]:
    """The child's pid, 0 in the child; whether that is process 1 of the container's PID namespace,
    and so in its others already."""
    pause_pid, user = container.pause_pid, container.user
    if user is not None and container.user_ns_fd < 0:
        container.user_ns_fd = namespaces.make_user_namespace(lambda: _join(pause_pid), *user)
    if command.shares_processes:
        return os.fork(), False
    if container.pid_ns_fd >= 0:
        return namespaces.fork_into(container.pid_ns_fd), False
    pid, container.pid_ns_fd = namespaces.fork_process_1(lambda: _join(pause_pid))
    container.process_1 = pid
    return pid, True


def _join(pause_pid: int) -> None:
    enter.set_oom_score_adj(enter.MOST_KILLABLE)
    enter.join_namespaces(pause_pid)


def _replace_proc() -> None:
    """The runtime's /proc must not stay below ours: who unmounts ours would see the pod's processes
    there, and by /proc/PID/root of the FUSE servers the node's files. The kernel allows ours only
    while that one is in sight, so ours waits in another place meanwhile."""
    linux.mount("proc", "/proc", "proc", linux.PROC_FLAGS)
    linux.mount("/proc", "/dev", None, linux.MS_MOVE)
    linux.detach_mount("/proc")
    linux.mount("/dev", "/proc", None, linux.MS_MOVE)


def _settle(command: Run, container: HeldContainer, is_process_1: bool) -> None:
    """Make of the forked child what the Pod's program is to be, but for the program."""
    if is_process_1:
        _replace_proc()
    else:
        enter.set_oom_score_adj(enter.MOST_KILLABLE)
        # The container's root sees us, and we still have podinit's files and descriptors.
        linux.forbid_inspection()
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
