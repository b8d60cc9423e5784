"""A container held for a runtime that leaves: fake runtimes, real processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpk.runtimes.base import Holder
from hpk.supervisor.process.pod_messages import Open
from hpk.supervisor.process.runtime_process import HeldContainer, read_pause_pid, start_runtime
from tests.supervisor_bench import userns_works

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
ENV = (("PATH", os.environ["PATH"]),)
LEAVES = 'sleep 1000 & echo $! > "$1"'
"""Starts what is to be held, and leaves."""


@dataclass(frozen=True)
class Place:
    """Where a test's container is."""

    root: Path

    @property
    def holder(self) -> Holder:
        """Of an image that is a directory."""
        (self.root / "box").mkdir(exist_ok=True)
        return Holder(
            image_path=str(self.root / "box"),
            image_root=str(self.root / "image"),
            image_argv=(),
            image_mounts=False,
            pid_file=str(self.root / "pid"),
        )

    def start(self, script: str, holder: Holder) -> HeldContainer:
        """Start a runtime that is this script; $1 is the pid file."""
        argv = ("sh", "-c", script, "sh", holder.pid_file)
        command = Open(1, argv, ENV, 0, 0, holder)
        with (self.root / "errors").open("wb") as errors:
            return start_runtime(command, errors.fileno())

    @property
    def errors(self) -> str:
        """What was said."""
        return (self.root / "errors").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def end(container: HeldContainer) -> int:
    os.close(container.stdin_fd)
    status = os.waitpid(container.runtime_pid, 0)[1]
    os.close(container.stdout_fd)
    return os.waitstatus_to_exitcode(status)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_the_runtime_started_is_held_until_the_input_ends(place: Place) -> None:
    container = place.start(LEAVES, place.holder)
    pause_pid = read_pause_pid(container.stdout_fd)
    assert is_there(pause_pid), place.errors
    assert end(container) == 0
    assert not is_there(pause_pid)


def test_grandchildren_that_left_their_session_end_too(place: Place) -> None:
    script = f'setsid sh -c "sleep 1000 & sleep 1000" & {LEAVES}'
    container = place.start(script, place.holder)
    assert read_pause_pid(container.stdout_fd), place.errors
    below = children_of(container.runtime_pid)
    assert below
    assert end(container) == 0
    assert not [pid for pid in below if is_there(pid)]


def children_of(pid: int) -> list[int]:
    return [int(item) for item in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_hold_ends_with_what_it_holds(place: Place) -> None:
    container = place.start(LEAVES, place.holder)
    pause_pid = read_pause_pid(container.stdout_fd)
    assert pause_pid, place.errors
    os.kill(pause_pid, signal.SIGKILL)
    os.waitpid(container.runtime_pid, 0)
    os.close(container.stdin_fd)
    os.close(container.stdout_fd)


def test_signals_meant_for_the_job_pass_it_by(place: Place) -> None:
    container = place.start(LEAVES, place.holder)
    pause_pid = read_pause_pid(container.stdout_fd)
    assert pause_pid, place.errors
    for pid in (container.runtime_pid, pause_pid):
        os.kill(pid, signal.SIGTERM)
    assert is_there(container.runtime_pid)
    assert is_there(pause_pid)
    assert end(container) == 0


@pytest.mark.parametrize("code", [0, 2])
def test_an_image_may_be_unpacked(place: Place, code: int) -> None:
    unpack = f'echo here > "{place.root}/image/file"; exit {code}'
    holder = replace(place.holder, image_argv=("sh", "-c", unpack))
    container = place.start(f'test -e "{place.root}/image/file" && {LEAVES}', holder)
    assert read_pause_pid(container.stdout_fd), place.errors
    assert end(container) == 0


@pytest.mark.parametrize(
    ("image_argv", "mounts", "says"),
    [
        (("sh", "-c", "echo no such image >&2; exit 1"), False, "cannot unpack"),
        (("sh", "-c", "echo no such image >&2; exit 1"), True, "cannot show"),
    ],
)
def test_an_image_that_cannot_be_shown(
    place: Place, image_argv: tuple[str, ...], mounts: bool, says: str
) -> None:
    holder = replace(place.holder, image_argv=image_argv, image_mounts=mounts)
    container = place.start(LEAVES, holder)
    assert read_pause_pid(container.stdout_fd) == 0
    assert end(container) == 1
    assert "no such image" in place.errors
    assert says in place.errors


def test_a_runtime_that_fails_says_why(place: Place) -> None:
    container = place.start("echo no space left >&2; exit 125", place.holder)
    assert read_pause_pid(container.stdout_fd) == 0
    assert end(container) == 125
    assert place.errors == "no space left\n"
