"""The pod's init: process 1 of the pod's PID namespace, parent of everything in it.

Forked by the supervisor before it has threads. It takes commands over a socket and reports what
became of them; when the socket closes or its parent dies it ends, and the kernel ends with it every
process of the namespace: containers, their daemons, FUSE servers, the runtime. Without namespaces
(an MPI launcher, which must be seen by Slurm) each child gets a parent-death signal instead.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from typing import Optional

from hpk.durable import read_file
from hpk.model.frozen import dataclass
from hpk.supervisor.base import linux
from hpk.supervisor.base.job_log import log, log_to_stderr
from hpk.supervisor.base.linux import close_files_but
from hpk.supervisor.process import execution
from hpk.supervisor.process.enter import BesideRanks, Enter, Namespaces, OnHost
from hpk.supervisor.process.namespaces import Beginning
from hpk.supervisor.process.pod_messages import (
    Close,
    Closed,
    Exited,
    Lost,
    NotStarted,
    Open,
    Opened,
    Ready,
    Run,
    Signal,
    Started,
    receive,
    send,
)
from hpk.supervisor.process.programs import start_program
from hpk.supervisor.process.runtime_process import (
    HeldContainer,
    read_pause_pid,
    start_runtime,
)

_CLOSE_TIMEOUT_S = 5.0
_PF_EXITING = 0x4  # include/linux/sched.h, in the flags of /proc/PID/stat
_FAILED_STATUS = 1 << 8
"""As waitpid tells that a process ended with 1."""


@dataclass
class _Program:
    """``pid``: -1 until it is known; what is to be signalled waits for that."""

    id: int
    pid: int
    error_fd: int
    enter: Enter
    status: Optional[int] = None
    signals: tuple[Signal, ...] = ()


def spawn(
    hostname: Optional[str], sysctls: tuple[tuple[str, str], ...] = ()
) -> tuple[int, socket.socket]:
    """Fork the pod's init; its pid and the socket to it. Call before any thread is started.

    :param hostname: of the namespaces it makes; None: it makes none.
    :param sysctls: kernel parameters of these namespaces: names with dots, and values.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        log_to_stderr()
        close_files_but(theirs.fileno())
        linux.die_with_parent(parent)
        for number in execution.TERMINATIONS:
            signal.signal(number, signal.SIG_IGN)
        if hostname is not None:
            _isolate(theirs, hostname, sysctls)
        _Init(theirs).serve()
        os._exit(0)
    except BaseException as error:  # a forked child must never return into its parent's code
        log("podinit failed", error=repr(error))
        os._exit(1)


def _isolate(sock: socket.socket, hostname: str, sysctls: tuple[tuple[str, str], ...]) -> None:
    """Return in process 1 of new namespaces of every kind but network and cgroup; this process
    waits for it."""
    uid, gid = os.getuid(), os.getgid()
    try:
        kinds = linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWNS | linux.CLONE_NEWUTS
        linux.unshare(linux.CLONE_NEWUSER | kinds)
        linux.map_single_id(0, uid, 0, gid)
        socket.sethostname(hostname)
    except OSError as error:
        send(sock, Ready(f"cannot make a user namespace on this node: {error}"))
        os._exit(1)
    child = os.fork()
    if child:
        sock.close()
        os.waitpid(child, 0)
        os._exit(0)
    linux.die_with_parent(0)
    try:
        linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
        linux.mount("proc", "/proc", "proc", linux.PROC_FLAGS)
    except OSError as error:
        send(sock, Ready(f"cannot mount /proc in a PID namespace on this node: {error}"))
        os._exit(1)
    for name, value in sysctls:
        try:
            _set_sysctl(name, value)
        except OSError as error:  # older kernels leave it to the node's own root
            send(sock, Ready(f"cannot set sysctl {name} on this node: {error.strerror}"))
            os._exit(1)


def _set_sysctl(name: str, value: str) -> None:
    file = os.open("/proc/sys/" + name.replace(".", "/"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)


class _Init:
    """podinit's loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._containers: dict[int, HeldContainer] = {}
        self._programs: dict[int, _Program] = {}
        self._early: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def serve(self) -> None:
        """Until the supervisor closes the socket."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        linux.become_subreaper()
        self._selector.register(self._sock, selectors.EVENT_READ, self._on_command)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        send(self._sock, Ready())
        while True:
            closing = any(c.closing_since_s for c in self._containers.values())
            for key, _ in self._selector.select(0.2 if closing else None):
                if key.data() is False:
                    return
            self._reap()
            self._enforce_closing()

    def _on_wake(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        return True

    def _on_command(self) -> bool:
        received = receive(self._sock)
        if received is None:
            return False
        command, fds = received
        try:
            if isinstance(command, Open):
                self._open(command, fds)
            elif isinstance(command, Run):
                self._run(command, fds)
            elif isinstance(command, Signal):
                self._signal(command)
            elif isinstance(command, Close):
                self._close(command.id)
            elif isinstance(command, Lost):
                self._lose(command)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _open(self, command: Open, fds: tuple[int, ...]) -> None:
        try:
            container = start_runtime(command, fds[0])
        except OSError as error:  # no more processes, or descriptors: for now
            with contextlib.suppress(OSError):
                os.write(fds[0], f"cannot start the container's runtime: {error}\n".encode())
            send(self._sock, Closed(command.id, _FAILED_STATUS))
            return
        self._containers[command.id] = container
        self._selector.register(
            container.stdout_fd, selectors.EVENT_READ, lambda: self._on_pause(container)
        )

    def _lose(self, command: Lost) -> None:
        log("a command came without its descriptors", kind=command.kind, id=command.id)
        if command.kind == Open.__name__:
            send(self._sock, Closed(command.id, _FAILED_STATUS))
        elif command.kind == Run.__name__:
            send(self._sock, NotStarted(command.id, "cannot start a process: no descriptors"))

    def _on_pause(self, container: HeldContainer) -> bool:
        self._selector.unregister(container.stdout_fd)
        pause_pid = read_pause_pid(container.stdout_fd)
        os.close(container.stdout_fd)
        container.stdout_fd = -1
        if pause_pid:
            container.enter = Namespaces(pause_pid, *container.user)
            send(self._sock, Opened(container.id))
        return True

    def _run(self, command: Run, fds: tuple[int, ...]) -> None:
        enter: Optional[Enter] = BesideRanks(fds[-1]) if command.beside else OnHost()
        if command.container is not None:
            container = self._containers.get(command.container)
            enter = None if container is None else container.enter
        if enter is None:
            send(self._sock, NotStarted(command.id, "the container is gone"))
            return
        try:
            pid, error_read = start_program(command, enter, fds)
        except OSError as error:  # no more processes, or descriptors: for now
            send(self._sock, NotStarted(command.id, f"cannot start a process: {error}"))
            return
        program = _Program(command.id, pid, error_read, enter)
        self._programs[command.id] = program
        beginning = enter.beginning
        if pid < 0 and beginning is not None:
            self._selector.register(
                beginning.fd, selectors.EVENT_READ, lambda: self._on_told(program, beginning)
            )
        else:
            self._watch_start(program)

    def _on_told(self, program: _Program, beginning: Beginning) -> bool:
        if not beginning.hear():
            return True
        self._selector.unregister(beginning.fd)
        try:
            program.pid = program.enter.settle()
        except OSError as error:
            os.close(program.error_fd)
            del self._programs[program.id]
            send(self._sock, NotStarted(program.id, f"cannot start a process: {error}"))
            return True
        program.status = self._early.pop(program.pid, None)
        self._watch_start(program)
        for command in program.signals:
            self._signal(command)
        return True

    def _watch_start(self, program: _Program) -> None:
        self._selector.register(
            program.error_fd, selectors.EVENT_READ, lambda: self._on_started(program)
        )

    def _on_started(self, program: _Program) -> bool:
        """End of the pipe without a word: execve has closed it, the program runs."""
        message = os.read(program.error_fd, 65536).decode(errors="replace")
        self._selector.unregister(program.error_fd)
        os.close(program.error_fd)
        program.error_fd = -1
        if message:
            send(self._sock, NotStarted(program.id, message))
            if program.status is None:
                os.waitpid(program.pid, 0)
            del self._programs[program.id]
            return True
        send(self._sock, Started(program.id))
        self._report_exit(program)
        return True

    def _signal(self, command: Signal) -> None:
        program = self._programs.get(command.id)
        if program is not None and program.pid < 0:
            program.signals = (*program.signals, command)
        elif program is not None and program.status is None:
            if command.as_process_1:
                program.enter.signal_process_1(command.number)
                return
            if command.group:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, command.number)
                    return
            # One that has just been forked may not lead its group yet.
            with contextlib.suppress(ProcessLookupError):
                os.kill(program.pid, command.number)

    def _close(self, container_id: int) -> None:
        container = self._containers.get(container_id)
        if container is None:
            send(self._sock, Closed(container_id, 0))
            return
        if container.enter is not None:
            container.enter.kill_programs()
        container.closing_since_s = time.monotonic()
        if container.stdin_fd >= 0:
            os.close(container.stdin_fd)
            container.stdin_fd = -1

    def _enforce_closing(self) -> None:
        for container in self._containers.values():
            since = container.closing_since_s
            if since and time.monotonic() - since > _CLOSE_TIMEOUT_S:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(container.runtime_pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                # Only look first: a program whose start is not settled is reaped where that is.
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._on_exit(pid, status)

    def _on_exit(self, pid: int, status: int) -> None:
        for program in self._programs.values():
            if program.pid == pid:
                program.status = status
                if program.error_fd < 0:
                    self._report_exit(program)
                return
        for container in self._containers.values():
            if container.runtime_pid == pid:
                self._forget(container, status)
                return
        if any(program.pid < 0 for program in self._programs.values()):
            self._early[pid] = status  # whose it is may be told yet
        else:
            self._early.clear()

    def _report_exit(self, program: _Program) -> None:
        """What falls with process 1 of its container is told after that: no probe has failed."""
        if program.status is None or _falls_with_process_1(program, program.status):
            return
        self._programs.pop(program.id, None)
        send(self._sock, Exited(program.id, program.status))
        if program.enter.process_1 == program.pid:
            program.enter.process_1 = 0
            for other in tuple(self._programs.values()):
                if other.enter is program.enter and other.error_fd < 0:
                    self._report_exit(other)

    def _forget(self, container: HeldContainer, status: int) -> None:
        if container.stdout_fd >= 0:
            self._selector.unregister(container.stdout_fd)
            os.close(container.stdout_fd)
        if container.stdin_fd >= 0:
            os.close(container.stdin_fd)
        if container.enter is not None:
            container.enter.close()
        del self._containers[container.id]
        send(self._sock, Closed(container.id, status))


def _falls_with_process_1(program: _Program, status: int) -> bool:
    """Whether the kernel has killed it because process 1 is ending: it does so first."""
    process_1 = program.enter.process_1
    if process_1 in (0, program.pid) or status != signal.SIGKILL:
        return False
    try:
        fields = read_file(f"/proc/{process_1}/stat", 4096).rpartition(b")")[2].split()
    except OSError:
        return False
    return bool(int(fields[6]) & _PF_EXITING)
