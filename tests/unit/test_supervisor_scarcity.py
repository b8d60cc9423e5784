"""What becomes of a pod while its node has no more processes, threads or descriptors to give."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from hpk.model.handlers import Handler, TcpSocketAction
from hpk.supervisor.base.event_loop import EventLoop
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.link.host_network import HostNetwork
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.handling import Action, Handling
from hpk.supervisor.process import pod_messages, podinit, switch_user
from hpk.supervisor.process.enter import Namespaces, OnHost
from hpk.supervisor.process.namespaces import fork_first
from hpk.supervisor.process.runtime_process import HeldContainer
from tests.supervisor_bench import userns_works

NO_MORE = "Resource temporarily unavailable"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, NO_MORE)

    monkeypatch.setattr(os, "fork", refuse)


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def told(sock: socket.socket) -> Any:
    received = pod_messages.receive(sock)
    assert received is not None
    return received[0]


@pytest.mark.usefixtures("no_more_processes")
def test_podinit_outlives_a_fork_that_fails(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, (tmp_path / "errors").open("wb") as errors:
        init = podinit._Init(theirs)
        before = open_files()
        run = pod_messages.Run(1, None, ("true",), (), "")
        pod_messages.send(ours, run, (errors.fileno(),) * 3)
        assert init._on_command()
        assert told(ours) == pod_messages.NotStarted(
            1, f"cannot start a process: [Errno 11] {NO_MORE}"
        )
        pod_messages.send(ours, pod_messages.Open(2, ("true",), (), 0, 0), (errors.fileno(),))
        assert init._on_command()
        assert told(ours) == pod_messages.Closed(2, 256)
        assert NO_MORE in (tmp_path / "errors").read_text()
        with pytest.raises(BlockingIOError):
            fork_first(lambda: None, lambda: None, ("user",), own_pids=True)
        assert open_files() == before


def test_descriptors_that_podinit_is_given_do_not_outlive_execve() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pod_messages.send(ours, pod_messages.Close(1), (0, 0))
        received = pod_messages.receive(theirs)
        assert received is not None
        for fd in received[1]:
            assert not os.get_inheritable(fd)
            os.close(fd)


def test_a_group_that_is_not_there_yet_is_signalled_all_the_same() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, subprocess.Popen(["sleep", "1000"]) as process:
        init = podinit._Init(theirs)
        init._programs[1] = podinit._Program(1, process.pid, -1, OnHost())
        try:
            init._signal(pod_messages.Signal(1, signal.SIGTERM, group=True))
            assert process.wait(30) == -signal.SIGTERM
        finally:
            process.kill()


class _Pod:
    """As much of a pod's loop as a check needs."""

    network = HostNetwork(lambda: "127.0.0.1")

    def __init__(self, loop: EventLoop) -> None:
        self.post = loop.post
        self.in_thread = loop.in_thread


def check(handler: Handler, refuse: Callable[[], Any]) -> list[CheckResult]:
    loop, found = EventLoop(), list[CheckResult]()
    action = Action(handler, 1.0, lambda argv, number: pod_messages.Run(number, 1, argv, (), "/"))
    with refuse():
        Handling(cast(Loop, _Pod(loop)), action, found.append)
    assert found == []  # whoever asked does not have the check yet
    loop.turn(10)
    return found


def test_a_check_that_gets_no_descriptor_has_failed_to_run() -> None:
    before = open_files()
    (result,) = check(Handler(exec=("true",)), no_more_files)
    assert result.outcome is Outcome.ERROR
    assert "Too many open files" in result.text
    assert open_files() <= before + 3  # the loop's own


def test_a_check_that_gets_no_thread_has_failed_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def no_more_threads() -> Iterator[None]:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            yield

    (result,) = check(Handler(tcp_socket=TcpSocketAction(1)), no_more_threads)
    assert result == CheckResult(Outcome.ERROR, "cannot run it: can't start new thread")


def test_podinit_outlives_a_moment_without_descriptors(tmp_path: Path) -> None:
    """It is process 1 of the pod: what it cannot say, or be told, must not end it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, (tmp_path / "errors").open("wb") as errors:
        init = podinit._Init(theirs)
        run = pod_messages.Run(1, None, ("true",), (("A", "x" * 10_000),), "")
        pod_messages.send(ours, run, (errors.fileno(),) * 3)
        small = pod_messages.Open(2, ("true",), (), 0, 0)
        pod_messages.send(ours, small, (errors.fileno(),))
        with no_more_files():
            assert init._on_command()
            assert init._on_command()
            init._close(3)
            assert told(ours) == pod_messages.NotStarted(
                1, "cannot start a process: no descriptors"
            )
            assert told(ours) == pod_messages.Closed(2, 256)
            assert told(ours) == pod_messages.Closed(3, 0)
        long = pod_messages.NotStarted(4, "y" * 30_000)
        pod_messages.send(theirs, long)
        assert told(ours) == long
        pod_messages.send(theirs, long)
        with no_more_files():
            assert isinstance(told(ours), pod_messages.NotStarted)


@pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
@pytest.mark.parametrize("ends", [False, True])
def test_podinit_obeys_while_a_container_hangs_at_its_image(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """The image may lie on a file system that hangs, and other containers be told to stop."""
    hang_read, hang_write = os.pipe2(os.O_CLOEXEC)

    def hang() -> None:
        os.close(hang_write)
        os.read(hang_read, 1)

    monkeypatch.setattr(switch_user, "take_their_places", hang)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, subprocess.Popen(["sleep", "1000"]) as other:
        init = podinit._Init(theirs)
        enter = Namespaces(os.getpid(), os.getuid(), os.getgid())
        init._containers[5] = HeldContainer(5, 0, -1, -1, (os.getuid(), os.getgid()), enter)
        init._programs[1] = podinit._Program(1, other.pid, -1, OnHost())
        sleep = pod_messages.Run(
            2, 5, ("sleep", "1000"), (("PATH", os.defpath),), "/", emulates_root=True,
            shares_processes=True,
        )  # fmt: skip
        for command in (sleep, pod_messages.Signal(2, 9), pod_messages.Signal(1, 15)):
            pod_messages.send(ours, command, (2, 2, 2) if command is sleep else ())
            assert init._on_command()
        assert other.wait() == -signal.SIGTERM
        if ends:
            enter.close()
        os.close(hang_write)
        gone = pod_messages.NotStarted(2, "cannot start a process: the container is gone")
        for expected in [gone] if ends else [pod_messages.Started(2), pod_messages.Exited(2, 9)]:
            while not select.select([ours], [], [], 0)[0]:
                for key, _ in init._selector.select(0.05):
                    key.data()
                init._reap()
            assert told(ours) == expected
        os.close(hang_read)
