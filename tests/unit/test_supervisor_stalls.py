"""A pod goes on, and can be told to end, while the shared file system hangs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk.durable import read_file
from hpk.model import frames
from hpk.model.handlers import ContainerProbes, Handler, ProbePlan
from hpk.model.record import PodPhase, StopCause
from hpk.supervisor.base.event_loop import EventLoop
from hpk.supervisor.base.shared_files import SharedFiles
from tests.stalling import StallingMount, can_stall, stalling_mount
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container, log_texts, read_record, write_attempt

needs_stall = pytest.mark.skipif(
    not can_stall() or not userns_works(), reason="no FUSE mounts or no user namespaces here"
)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[StallingMount]:
    with stalling_mount(tmp_path) as mount:
        yield mount


@needs_stall
def test_nothing_of_a_pod_hangs_with_the_shared_file_system(
    bench: Bench, shared: StallingMount
) -> None:
    here = bench.directory
    # More than the pipe holds: somebody must go on reading.
    script = (
        f"until [ -e '{here}/go' ]; do sleep 0.01; done; "
        f"head -c 3000000 /dev/zero | tr '\\0' x; touch '{here}/written'; sleep 1000"
    )
    probe = ProbePlan(Handler(exec=("test", "-e", f"{here}/written")), period_s=1, timeout_s=30)
    (here / "image.sif").touch()
    plan = container(
        ("sh", "-c", script), str(here / "image.sif"), probes=ContainerProbes(readiness=probe)
    )
    endpoint = shared.path / "endpoint.json"
    shutil.copy(bench.peer.endpoint, endpoint)
    layout = write_attempt(
        shared.path / "attempt",
        bench.peer,
        plan,
        runtime_path=(str(here / "bin"),),
        local_root=str(here),
        endpoint_path=str(endpoint),
        heartbeat_path=str(shared.path / "heartbeat"),
    )
    process = bench.start(layout)
    bench.peer.wait_running()
    shared.stall()
    (here / "go").touch()
    wait_until((here / "written").exists)
    bench.peer.wait_record(lambda record: record.containers[0].ready is True)
    bench.peer.drop()
    bench.peer.wait(lambda: len(bench.peer.hellos) > 1)
    bench.peer.send(frames.Stop(0))
    stopping = bench.peer.wait_record(lambda record: record.phase is PodPhase.STOPPING)
    assert stopping.stop_cause is StopCause.REQUESTED
    assert process.poll() is None  # neither the log nor the record is on the disk yet
    shared.go_on()
    assert process.wait(60) == 137
    last = bench.peer.wait_finished()
    assert read_record(layout).phase is PodPhase.FINISHED
    written = log_texts(Path(layout.root, last.containers[0].log_path).read_bytes())
    assert written == b"x" * 3000000


def test_work_that_fails_ends_no_work_after_it() -> None:
    files = SharedFiles(lambda event: event())

    def fail() -> None:
        raise ValueError("not foreseen")

    files.put("first", fail)
    assert files.wait(lambda: "second", 120) == "second"


@needs_stall
def test_the_door_hangs_alone_and_says_so(shared: StallingMount) -> None:
    (shared.path / "file").write_bytes(b"text")
    loop = EventLoop()
    files = SharedFiles(loop.post)
    found: list[bytes] = []

    def ask(timeout_s: float) -> None:
        files.ask(
            lambda: read_file(shared.path / "file"), found.append, instead=b"", timeout_s=timeout_s
        )

    def turn_until(count: int) -> None:
        while len(found) < count:
            loop.turn(0.05)
            files.tick()

    ask(60)
    turn_until(1)
    assert files.finish(60)
    shared.stall()
    ask(0.1)
    turn_until(2)
    with pytest.raises(TimeoutError):
        files.wait(lambda: read_file(shared.path / "file"), 0.1)
    done: list[int] = []
    for number in range(3):
        files.put("kind", lambda number=number: done.append(number))  # type: ignore[misc]
    assert not files.finish(0.1)
    ask(60)
    shared.go_on()
    turn_until(3)
    assert files.finish(60)
    assert found == [b"text", b"", b"text"]
    assert done == [2]  # of those that waited the latest alone
    with pytest.raises(FileNotFoundError):
        files.wait(lambda: read_file(shared.path / "missing"), 60)
