"""What a pod leaves and takes is bounded, and a disk without room stops no pod and no Stop."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk.model import frames
from hpk.model.plan import RestartPolicy
from hpk.model.record import StopCause
from hpk.supervisor.base import termination
from hpk.supervisor.pod.pod_report import final_patience_s
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container, read_record, write_attempt

needs_userns = pytest.mark.skipif(
    not userns_works(), reason="this machine allows no user namespaces"
)


@needs_userns
def test_of_earlier_starts_the_last_one_alone_keeps_its_log(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", "echo said; exit 1", restart_policy=RestartPolicy.ALWAYS)
    process = bench.start(layout)
    logs = Path(layout.logs, "main")
    bench.peer.wait_record(lambda record: record.containers[0].restart_count == 2)
    wait_until(lambda: not (logs / "0.log").exists())
    assert b"said" in bench.peer.read_log(1, "logs/main/1.log", wait=True)
    with pytest.raises(OSError, match="no log of this pod"):
        bench.peer.read_log(2, "logs/main/0.log", wait=False)
    bench.peer.send(frames.Stop(0))
    process.wait(60)


def test_the_containers_of_a_pod_share_what_upstream_allows_it() -> None:
    assert [termination.bytes_for_each(count) for count in (1, 3, 5)] == [4096, 4096, 2457]
    assert termination.cut("é" * 5, 5) == "éé"


def test_an_end_that_nobody_knows_is_kept_for_long() -> None:
    def patience_s(cause: StopCause, *, is_known: bool = False, has_place: bool = True) -> float:
        return final_patience_s(cause, is_known=is_known, has_place=has_place)

    kept = patience_s(StopCause.COMPLETED)
    assert kept >= 600
    assert patience_s(StopCause.COMPLETED, is_known=True) < 10
    assert patience_s(StopCause.SIGNALLED) < kept
    assert patience_s(StopCause.REQUESTED, has_place=False) < kept


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root mounts a small file system")
    place = tmp_path / "small disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    subprocess.run(argv, check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


@needs_userns
def test_a_full_disk_stops_neither_a_pod_nor_what_it_is_told(
    bench: Bench, small_disk: Path
) -> None:
    here = bench.directory
    script = (
        f"until [ -e '{here}/go' ]; do sleep 0.01; done; "
        f"head -c 3000000 /dev/zero | tr '\\0' x; touch '{here}/written'; sleep 1000"
    )
    image = here / "image.sif"
    image.touch()
    layout = write_attempt(
        small_disk / "attempt",
        bench.peer,
        container(("sh", "-c", script), str(image)),
        runtime_path=(str(here / "bin"),),
        local_root=str(here),
    )
    process = bench.start(layout)
    bench.peer.wait_running()
    fill(small_disk)
    (here / "go").touch()
    wait_until((here / "written").exists)
    bench.peer.send(frames.Stop(0))
    last = bench.peer.wait_finished()
    assert last.stop_cause is StopCause.REQUESTED
    assert process.wait(60) == 137
    assert read_record(layout).seq < last.seq


@needs_userns
def test_an_end_that_is_on_no_disk_is_kept_until_the_kubelet_has_put_it_down(
    bench: Bench, small_disk: Path
) -> None:
    here = bench.directory
    image = here / "image.sif"
    image.touch()
    layout = write_attempt(
        small_disk / "attempt",
        bench.peer,
        container(("sh", "-c", f"until [ -e '{here}/go' ]; do sleep 0.01; done"), str(image)),
        runtime_path=(str(here / "bin"),),
        local_root=str(here),
    )
    bench.peer.keep = False
    process = bench.start(layout)
    bench.peer.wait_running()
    fill(small_disk)
    (here / "go").touch()
    last = bench.peer.wait_finished()
    # That the kubelet has heard of it is not enough: it is there to be told more.
    bench.peer.send(frames.StatusAck(last.seq, kept=False))
    assert process.poll() is None
    bench.peer.send(frames.StatusAck(last.seq))
    assert process.wait(60) == 0
    assert read_record(layout).seq < last.seq
