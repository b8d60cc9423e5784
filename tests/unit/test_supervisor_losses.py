"""What becomes of a pod whose own processes fail it: podinit is killed, the loop breaks."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from hpk.model import codec, frames
from hpk.model.bundle import Bundle
from hpk.model.errors import HpkError
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec, RestartPolicy
from hpk.model.record import ContainerPhase, PodPhase, StopCause
from hpk.supervisor import main
from hpk.supervisor.inside import localdir
from hpk.supervisor.process import pod_messages
from hpk.supervisor.ranks import rank, rank_files
from hpk.supervisor.ranks.rank_keeper import PodPlace, RankContext
from tests.supervisor_bench import Bench, userns_works
from tests.supervisor_peer import container, read_record, write_attempt

needs_userns = pytest.mark.skipif(
    not userns_works(), reason="this machine allows no user namespaces"
)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()]


def podinit(supervisor: int) -> int:
    """Process 1 of the pod's namespace."""
    (parent,) = children(supervisor)
    (found,) = children(parent)
    return found


@needs_userns
def test_podinit_killed_with_a_command_it_has_not_read(bench: Bench) -> None:
    layout = bench.attempt("sleep", "1000")
    process = bench.start(layout)
    bench.peer.wait_running()
    init = podinit(process.pid)
    os.kill(init, signal.SIGSTOP)
    bench.peer.send(frames.Stop(3600))
    bench.peer.wait_record(lambda record: record.phase is PodPhase.STOPPING)
    os.kill(init, signal.SIGKILL)
    assert process.wait(30) == 137
    record = read_record(layout)
    assert (record.phase, record.stop_cause) == (PodPhase.FINISHED, StopCause.REQUESTED)
    assert record.containers[0].state.signal == signal.SIGKILL


@needs_userns
def test_podinit_killed_in_a_back_off_ends_the_pod(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", "exit 2", restart_policy=RestartPolicy.ALWAYS)
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: r.containers[0].state.reason == "CrashLoopBackOff")
    os.kill(podinit(process.pid), signal.SIGKILL)
    assert process.wait(30) == 2
    state = read_record(layout).containers[0].state
    assert (state.phase, state.exit_code) == (ContainerPhase.TERMINATED, 2)


@needs_userns
def test_podinit_killed_starts_nothing_again(bench: Bench) -> None:
    init = container(("sh", "-c", "sleep 1000"), "/image.sif", name="first")
    main_plan = container(("true",), "/image.sif")
    layout = bench.attempt_of(
        main_plan, init_containers=(init,), restart_policy=RestartPolicy.ALWAYS
    )
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: r.init_containers[0].state.phase is ContainerPhase.RUNNING)
    os.kill(podinit(process.pid), signal.SIGKILL)
    assert process.wait(30) == 137
    record = read_record(layout)
    assert record.init_containers[0].restart_count == 0
    assert "init process was killed" in record.containers[0].state.message


@needs_userns
def test_a_broken_loop_leaves_a_record(bench: Bench) -> None:
    script = f"while [ ! -e '{bench.directory}/go' ]; do sleep 0.01; done"
    layout = bench.attempt_of(
        container(("true",), "/image.sif"),
        init_containers=(container(("sh", "-c", script), "/image.sif", name="first"),),
    )
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: r.init_containers[0].state.phase is ContainerPhase.RUNNING)
    # The next container's directory cannot be made: a state the loop has no answer to.
    work = bench.directory / f"hpk-{os.getuid()}" / "77"
    work.rename(work.with_name("78"))
    (bench.directory / "go").touch()
    assert process.wait(30) == 1
    record = read_record(layout)
    assert (record.phase, record.stop_cause) == (PodPhase.FINISHED, StopCause.SETUP_FAILED)
    assert "FileNotFoundError" in record.message
    assert record.init_containers[0].state.exit_code == 0
    assert record.containers[0].state.reason == "StartError"
    assert "Traceback" in Path(layout.job_output).read_text()
    assert bench.peer.wait_finished() == record


def test_what_podinit_said_last_is_heard_though_it_left_commands_unread() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        pod_messages.send(ours, pod_messages.Signal(1, 15))
        pod_messages.send(theirs, pod_messages.Exited(1, 0))
        theirs.close()
        assert pod_messages.receive(ours) == (pod_messages.Exited(1, 0), ())
        assert pod_messages.receive(ours) is None


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["walk", "--attempt-dir=/"],
        ["run"],
        ["run", "dir"],
        ["rank", "--attempt-dir=/", "--container=c", "--restart=x"],
    ],
)
def test_a_wrong_command_line_gets_the_usage(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main.main(argv) == 2
    assert "usage: run" in capfd.readouterr().err


def test_a_defect_is_no_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: AttemptLayout) -> int:
        return int("defect")

    monkeypatch.setattr(main, "run", broken)
    with pytest.raises(ValueError, match="defect"):
        main.main(["run", "--attempt-dir=/"])


def test_a_rank_tells_why_its_node_has_no_container_before_the_next_one_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(localdir, "_TMPFS_ROOT", str(tmp_path))  # nothing stays in /dev/shm
    layout = write_attempt(
        tmp_path / "a", None, container(("true",), "/image.sif"), runtime_path=(str(tmp_path),)
    )
    Path(rank_files.directory(layout)).mkdir()
    spec = codec.loads(JobSpec, Path(layout.spec).read_text())
    env = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "PATH": str(tmp_path)}
    place = PodPlace("elsewhere", str(tmp_path), str(tmp_path))
    me = RankContext(layout, spec, spec.plan.containers[0], 0, env, place)
    with pytest.raises(HpkError) as caught:
        rank.enter_container(me, Bundle((), ()))
    assert rank_files.start_error(layout, "main", 0) == str(caught.value)
