"""Components as real processes: ready, restarted, stopped, and dead with their parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bootstrap.host import Identity
from bootstrap.logs import rotate
from bootstrap.plan import ComponentPlan
from bootstrap.processes import ProcessId
from bootstrap.remains import end_remains
from bootstrap.runner import Runner
from bootstrap.state import (
    ComponentPhase,
    ComponentState,
    ControlPlaneState,
    Phase,
    StatePublisher,
    read_state,
    state_path,
)
from bootstrap.tenure import mend, stop_requested
from hpk import subproc
from hpk.durable import private_directory
from hpk.model.errors import TransientError
from hpk.statefs import HpkPaths

ENVIRONMENT = {"PATH": os.environ["PATH"]}


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    paths = HpkPaths(home=tmp_path / "a b'$(x)", cache=tmp_path)
    private_directory(paths.control_plane)
    private_directory(paths.logs)
    return paths


def _publisher(paths: HpkPaths, *components: ComponentState) -> StatePublisher:
    return StatePublisher(
        paths,
        ControlPlaneState(
            generation=1,
            identity=Identity.here(),
            phase=Phase.STARTING,
            message="",
            address="",
            components=components,
        ),
    )


class Bench:
    """One component that runs a shell script."""

    def __init__(
        self, paths: HpkPaths, script: str, *, stop_timeout_s: float = 5, program: str = "/bin/sh"
    ) -> None:
        self.paths = paths
        self.marker = paths.home / "ready"
        self.failure: OSError | None = None
        plan = ComponentPlan(
            name="thing",
            stage=0,
            argv=(program, "-c", script, "thing", str(paths.home)),
            environment=ENVIRONMENT,
            stop_timeout_s=stop_timeout_s,
        )
        publisher = _publisher(paths)
        self.runner = Runner(plan, "v1", paths.logs / "thing.log", self._check, publisher)
        publisher.begin("", (self.runner.state,))

    async def _check(self) -> bool:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return self.marker.exists()

    def state(self) -> ComponentState:
        state = read_state(self.paths)
        assert state is not None
        return state.components[0]


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _running(bench: Bench) -> AsyncIterator[None]:
    bench.runner.begin()
    try:
        yield
    finally:
        await bench.runner.stop()


async def test_ready_is_what_the_check_says(paths: HpkPaths) -> None:
    bench = Bench(paths, "exec sleep 100")
    async with _running(bench):
        await _until(lambda: bench.state().phase is ComponentPhase.STARTING)
        bench.marker.touch()
        await bench.runner.wait_ready(10)
        state = bench.state()
        assert state.phase is ComponentPhase.READY
        assert ProcessId(pid=state.pid, start_ticks=state.start_ticks).is_alive()
    assert bench.state().phase is ComponentPhase.STOPPED
    assert not ProcessId(pid=state.pid, start_ticks=state.start_ticks).is_alive()


async def test_one_that_ends_is_started_again(paths: HpkPaths) -> None:
    bench = Bench(paths, "exec sleep 100")
    bench.marker.touch()
    async with _running(bench):
        await bench.runner.wait_ready(10)
        first = bench.state().pid
        os.kill(first, signal.SIGKILL)
        await _until(lambda: bench.state().phase is ComponentPhase.BACKOFF)
        assert bench.state().message == "was ended by signal 9"
        await _until(lambda: bench.state().phase is ComponentPhase.READY)
        assert bench.state().pid != first
        assert bench.state().restarts == 1


async def test_one_that_cannot_start_says_why(paths: HpkPaths) -> None:
    bench = Bench(paths, "echo the disk is full >&2; exit 4")
    async with _running(bench):
        with pytest.raises(TransientError, match=r"(?s)ended while starting.*the disk is full"):
            await bench.runner.wait_ready(10)
        await _until(lambda: bench.state().message == "ended with exit code 4")


async def test_one_that_the_kernel_refuses_to_start_is_tried_again(paths: HpkPaths) -> None:
    # ENOEXEC stands for what a host refuses for a while: EAGAIN, ENOMEM, ESTALE.
    program = paths.home / "program"
    program.write_text("no program yet")
    program.chmod(0o700)
    bench = Bench(paths, "exec sleep 100", program=str(program))
    bench.marker.touch()
    async with _running(bench):
        await _until(lambda: bench.state().phase is ComponentPhase.BACKOFF)
        assert "Exec format error" in bench.state().message
        program.unlink()
        program.symlink_to("/bin/sh")
        await _until(lambda: bench.state().phase is ComponentPhase.READY)


async def test_a_failure_nobody_thought_of_is_told_and_tried_again(paths: HpkPaths) -> None:
    bench = Bench(paths, "", program="/bin/sh\0")  # a ValueError
    async with _running(bench):
        await _until(lambda: bench.state().restarts > 1)
        assert "embedded null byte" in bench.state().message


async def test_one_whose_log_cannot_be_opened_runs_without(
    paths: HpkPaths, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(paths, "exec sleep 100")
    bench.marker.touch()
    bench.runner.log_path.mkdir()
    async with _running(bench):
        await _until(lambda: bench.state().phase is ComponentPhase.READY)
    assert str(bench.runner.log_path) in caplog.text


async def test_a_check_that_fails_is_asked_again(paths: HpkPaths) -> None:
    bench = Bench(paths, "exec sleep 100")
    bench.failure = OSError("too many open files")
    async with _running(bench):
        await _until(lambda: bench.failure is None)
        bench.marker.touch()
        await _until(lambda: bench.state().phase is ComponentPhase.READY)


async def _not_kept() -> None:
    await _until(lambda: "run thing" not in {task.get_name() for task in asyncio.all_tasks()})


async def test_one_that_is_killed_in_its_backoff_does_not_start_again(paths: HpkPaths) -> None:
    bench = Bench(paths, 'echo once >> "$1/starts"; exit 4')
    bench.runner.begin()
    await _until(lambda: bench.state().phase is ComponentPhase.BACKOFF)
    bench.runner.kill()
    await _not_kept()
    assert (paths.home / "starts").read_text() == "once\n"
    await bench.runner.ended()


@pytest.mark.parametrize("turns", range(3))
async def test_one_that_is_killed_while_it_is_being_started_ends(
    paths: HpkPaths, turns: int
) -> None:
    bench = Bench(paths, "exec sleep 100")
    bench.runner.begin()
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not bench.runner.state.pid
    bench.runner.kill()
    await _not_kept()
    await bench.runner.ended()


async def test_one_that_is_never_ready_says_so(paths: HpkPaths) -> None:
    bench = Bench(paths, "echo waiting; exec sleep 100")
    async with _running(bench):
        log = bench.runner.log_path
        await _until(lambda: log.exists() and "waiting" in log.read_text())
        with pytest.raises(TransientError, match=r"(?s)not ready in 0\.2.*waiting"):
            await bench.runner.wait_ready(0.2)


async def test_one_that_does_not_stop_is_killed(paths: HpkPaths) -> None:
    bench = Bench(paths, "trap '' TERM; touch \"$1/ready\"; sleep 100", stop_timeout_s=0.2)
    async with _running(bench):
        await bench.runner.wait_ready(10)
        process = ProcessId.of(bench.state().pid)
    assert not process.is_alive()


PARENT = """
import asyncio, sys
from pathlib import Path
from hpk import subproc
async def main():
    child = await subproc.start(
        ["/bin/sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1; done"],
        environment={"PATH": "/usr/bin:/bin"}, output=Path(sys.argv[1]))
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


async def test_a_component_dies_with_its_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = ProcessId.of(int(parent.stdout.readline()))
    assert child.is_alive()
    parent.kill()
    parent.communicate()
    await _until(lambda: not child.is_alive())


async def test_what_is_detached_has_a_session_of_its_own(tmp_path: Path) -> None:
    output = tmp_path / "log"
    script = "ps -o sid= -o tty= -p $$; exec sleep 100"
    pid = subproc.detach(["/bin/sh", "-c", script], environment=ENVIRONMENT, output=output)
    try:
        await _until(lambda: output.exists() and output.read_text().endswith("\n"))
        assert output.read_text().split() == [str(pid), "?"]
        assert not subproc.has_ended(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    await _until(lambda: subproc.has_ended(pid))


def _component(process: subprocess.Popen[bytes], start_ticks: int) -> ComponentState:
    return ComponentState(
        name="left",
        version="v1",
        phase=ComponentPhase.READY,
        pid=process.pid,
        start_ticks=start_ticks,
    )


def test_remains_are_ended_and_strangers_are_not(paths: HpkPaths) -> None:
    left = subprocess.Popen(["sleep", "100"])
    stranger = subprocess.Popen(["sleep", "100"])
    try:
        ticks = ProcessId.of(left.pid).start_ticks
        _publisher(
            paths,
            _component(left, ticks),
            _component(stranger, ProcessId.of(stranger.pid).start_ticks + 1),
        )
        assert end_remains(paths) == ("left",)
        assert left.wait(10) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        for process in (left, stranger):
            process.kill()
            process.wait()


def test_a_request_stops_only_its_generation(paths: HpkPaths) -> None:
    assert not stop_requested(paths, 2)
    for text, stops in (("", False), ("[]", False), ('{"generation": 1}', False)):
        paths.stop_request.write_text(text)
        assert stop_requested(paths, 2) is stops
    paths.stop_request.write_text('{"generation": 2, "host": "x"}')
    assert stop_requested(paths, 2)


def test_logs_are_rotated_under_their_writer(tmp_path: Path) -> None:
    path = tmp_path / "thing.log"
    with path.open("ab", buffering=0) as writer:
        for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
            writer.write(line * 10)
            rotate(path, limit_bytes=20)
        writer.write(b"five\n")
    assert path.read_bytes() == b"five\n"
    assert (tmp_path / "thing.log.1").read_bytes() == b"four\n" * 10
    assert (tmp_path / "thing.log.2").read_bytes() == b"three\n" * 10
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "thing.log",
        "thing.log.1",
        "thing.log.2",
    }


@pytest.mark.parametrize("found", [None, "", "{", "\udcff"])
def test_a_file_that_was_damaged_is_written_again(tmp_path: Path, found: str | None) -> None:
    path = tmp_path / "endpoint.json"
    if found is not None:
        path.write_bytes(found.encode(errors="surrogateescape"))
    mend(path, "good", is_ours=lambda: True)
    assert path.read_text() == "good"
    before = path.stat().st_ino
    mend(path, "good", is_ours=lambda: True)
    assert path.stat().st_ino == before
    mend(path, "", is_ours=lambda: True)  # before there is an endpoint, and when it is to go
    assert path.read_text() == "good"


def test_what_another_generation_wrote_is_left(paths: HpkPaths) -> None:
    endpoint = paths.endpoint
    endpoint.write_text("the other's")
    mend(endpoint, "ours", is_ours=lambda: False)
    assert endpoint.read_text() == "the other's"

    publisher = _publisher(paths)
    (private_directory(paths.lock) / "2.json").touch()
    state_path(paths).write_text("the other's")
    publisher.set_phase(Phase.RUNNING)
    publisher.mend()
    assert state_path(paths).read_text() == "the other's"
