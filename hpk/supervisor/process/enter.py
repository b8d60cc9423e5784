"""How a program gets to where it runs: into a container, or beside it on the host.

The one place that knows: what a runtime holds open is entered by its namespaces here; a runtime
that lets nobody in but by a program of its own becomes another ``Enter``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import NoReturn, Optional, Protocol

from hpk.supervisor.base import linux
from hpk.supervisor.base.job_log import log
from hpk.supervisor.process import execution, namespaces, switch_user
from hpk.supervisor.process.confinement import confine, filters_for
from hpk.supervisor.process.pod_messages import Run
from hpk.supervisor.process.seccomp.emulation import kill_of_process_1


class Enter(Protocol):
    """A way in; one for each container."""

    process_1: int
    """Of the PID namespace that its programs are in, as podinit sees it; 0 where there is none."""
    beginning: Optional[namespaces.Beginning]
    """What is to be heard out before `settle`."""

    def fork(self, run: Run) -> int:
        """Fork what is to become the program: its pid here, 0 in the child; -1 where it is not
        known before ``beginning`` has said all and `settle` is called.

        :raises OSError: there are no more processes or descriptors, the kernel refuses a
            namespace, or the container has ended.
        """

    def settle(self) -> int:
        """The pid of the program that was begun, and that runs from now on.

        :raises OSError: as above.
        """

    def become(self, run: Run, arrive: Callable[[], None]) -> NoReturn:
        """In that child, which leads a session: go there, take on the program's rights, and execute
        it.

        :param arrive: called there, with all rights still; gives it the program's descriptors.
        :raises StartError: it cannot be executed.
        :raises OSError: the kernel refuses.
        """

    def signal_process_1(self, number: int) -> None:
        """As a process of the container does; for nothing where processes are shared."""

    def kill_programs(self) -> None:
        """SIGKILL all that runs there, whatever has become of it."""

    def close(self) -> None:
        """Let go of it."""


class OnHost:
    """Beside the containers: the launcher of an MPI run, scancel."""

    process_1 = 0
    beginning: Optional[namespaces.Beginning] = None

    def fork(self, run: Run) -> int:
        """See Enter.fork."""
        self._parent = os.getpid()
        return os.fork()

    def settle(self) -> int:
        """See Enter.settle."""
        raise OSError("nothing was begun")

    def become(self, run: Run, arrive: Callable[[], None]) -> NoReturn:
        """See Enter.become."""
        arrive()
        execution.set_oom_score_adj(execution.MOST_KILLABLE)
        linux.die_with_parent(self._parent)
        execution.reset_signals()
        execution.execute(run.argv, dict(run.env))

    def signal_process_1(self, number: int) -> None:
        """See Enter.signal_process_1."""

    def kill_programs(self) -> None:
        """See Enter.kill_programs."""

    def close(self) -> None:
        """See Enter.close."""


class BesideRanks(OnHost):
    """In the container that the ranks of an MPI run share on this node, which is not podinit's.

    They are in the node's PID namespace, and nobody's process 1: what a program here sends to that
    is for them all, and who listens has them told. A signal to everybody would end the user's other
    jobs on the node; it is refused.

    :param to: a socket that is sent the listener.
    """

    def __init__(self, to: int) -> None:
        self._to = to

    def become(self, run: Run, arrive: Callable[[], None]) -> NoReturn:
        """See Enter.become."""
        execution.set_oom_score_adj(execution.MOST_KILLABLE)
        linux.forbid_inspection()
        namespaces.join_namespaces(run.beside)
        linux.die_with_parent(self._parent)  # new credentials have undone it
        arrive()
        os.umask(0o022)
        execution.change_directory(run.working_dir)
        listener = linux.filter_and_listen(kill_of_process_1(os.uname().machine))
        with socket.socket(fileno=os.dup(self._to)) as sock:
            socket.send_fds(sock, [b"l"], [listener])
        confine(run.rights, emulates_root=False)
        execution.reset_signals()
        execution.execute(run.argv, dict(run.env))


class Namespaces:
    """By joining those of the program that the runtime holds the container open with."""

    def __init__(self, pause_pid: int, uid: int, gid: int) -> None:
        self.process_1 = 0
        self._pause_pid = pause_pid
        self._user = uid, gid
        self._opened: dict[str, int] = {}
        self._is_there = False
        self._is_ending = False
        self.beginning: Optional[namespaces.Beginning] = None

    def fork(self, run: Run) -> int:
        """See Enter.fork."""
        filters_for(run.rights, emulates_root=run.emulates_root)
        if self.beginning is not None:
            raise OSError("the container's first program is not there yet")
        if "user" not in self._opened:
            return self._fork_first(run)
        if "pid" in self._opened:
            return namespaces.fork_into(self._opened["pid"])
        return os.fork()

    def _fork_first(self, run: Run) -> int:
        own_pids, can_mount = not run.shares_processes, run.rights.can_mount
        kinds = ("user", *(["pid"] if own_pids else []), *(["mnt"] if can_mount else []))

        def make() -> None:
            if own_pids:
                linux.mount("proc", "/proc", "proc", linux.PROC_FLAGS)
            if run.emulates_root:
                switch_user.take_their_places()
            namespaces.become_user(*self._user, can_mount=can_mount)

        self.beginning = namespaces.fork_first(self._join, make, kinds, own_pids=own_pids)
        self._is_there = self.beginning is None
        return 0 if self._is_there else -1

    def settle(self) -> int:
        """See Enter.settle."""
        beginning, self.beginning = self.beginning, None
        if beginning is None:
            raise OSError("nothing was begun")
        first = beginning.finish(unless="the container is gone" if self._is_ending else "")
        self._opened = first.namespaces
        self.process_1 = first.pid if "pid" in first.namespaces else 0
        return first.pid

    def _join(self) -> None:
        execution.set_oom_score_adj(execution.MOST_KILLABLE)
        namespaces.join_namespaces(self._pause_pid)

    def become(self, run: Run, arrive: Callable[[], None]) -> NoReturn:
        """See Enter.become."""
        if not self._is_there:
            execution.set_oom_score_adj(execution.MOST_KILLABLE)
            # Its programs see us, and we still have podinit's files and descriptors.
            linux.forbid_inspection()
            namespaces.join_namespaces(self._pause_pid)
            linux.setns(self._opened["user"], linux.CLONE_NEWUSER)
            if "mnt" in self._opened:
                linux.setns(self._opened["mnt"], linux.CLONE_NEWNS)
        arrive()
        os.umask(0o022)
        execution.make_links((link.target, link.source) for link in run.links)
        execution.change_directory(run.working_dir)
        confine(run.rights, emulates_root=run.emulates_root)
        execution.reset_signals()
        execution.execute(run.argv, dict(run.env))

    def signal_process_1(self, number: int) -> None:
        """See Enter.signal_process_1. Where processes are shared that is podinit."""
        if "pid" in self._opened:
            try:
                namespaces.signal_process_1(self._opened["pid"], number)
            except OSError as error:
                log("cannot signal process 1", number=number, error=error)

    def kill_programs(self) -> None:
        """See Enter.kill_programs. By the user namespace, which nobody in there can leave."""
        self._is_ending = True
        if "user" not in self._opened:
            return
        for _ in range(100):  # a fork bomb is killed by the end of the PID namespace instead
            found = [
                int(name)
                for name in os.listdir("/proc")
                if name.isdigit() and namespaces.is_below(int(name), self._opened["user"])
            ]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not found:
                return
            time.sleep(0.005)

    def close(self) -> None:
        """See Enter.close. Its programs may still be there."""
        self._is_ending = True
        for fd in self._opened.values():
            os.close(fd)
        self._opened = {}
