"""The supervisor as a process, running pods of one container."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpk.model import codec, frames
from hpk.model.bundle import Bundle
from hpk.model.plan import ImageConfig, RestartPolicy
from hpk.model.record import ContainerPhase, PodPhase, StopCause
from tests.supervisor_bench import PYTHON, Bench, userns_works, wait_until
from tests.supervisor_peer import Peer, container, env, log_texts, read_record

NASTY = (
    "",
    "a b'c\"d $(touch /canary) `touch /canary` \n#SBATCH --x\n é漢 \\ ${HOME} %s ,=:;",
    "--flag",
    "\x01\x7f",
)
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))"
pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)


def test_argv_and_environment_arrive_to_the_byte(bench: Bench) -> None:
    bench.peer.bundle = Bundle((), env(KUBERNETES_SERVICE_HOST="127.0.0.1"))
    variables = env(**{f"N{number}": text for number, text in enumerate(NASTY)})
    made = bench.directory / "made" / "by hand"
    layout = bench.attempt(
        PYTHON, "-c", SHOW, *NASTY, env=variables, working_dir=str(made), hostname="pod-0"
    )
    assert bench.start(layout).wait(30) == 0
    log = bench.peer.records[-1].containers[0].log_path
    text = log_texts((Path(layout.root) / log).read_bytes())
    argv, environment, cwd = json.loads(text)
    assert tuple(argv) == NASTY
    assert {item.name: item.value for item in variables}.items() <= environment.items()
    assert environment["HOSTNAME"] == "pod-0"
    assert environment["HOME"] == "/root"
    assert environment["KUBERNETES_SERVICE_HOST"] == "127.0.0.1"
    assert not {name for name in environment if name.startswith(("SLURM", "APPTAINER", "MARKER"))}
    assert cwd == str(made)
    assert not Path("/canary").exists()


def test_a_run_is_told_on_the_channel_and_on_the_disk(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", "echo out; echo err >&2; exit 3")
    process = bench.start(layout)
    running = bench.peer.wait_running()
    data = bench.peer.read_log(1, running.containers[0].log_path, wait=True)
    assert log_texts(data) == b"out\n"
    assert log_texts(data, "stderr") == b"err\n"
    finished = bench.peer.wait_finished()
    assert process.wait(30) == 3
    assert read_record(layout) == finished
    state = finished.containers[0].state
    assert (state.phase, state.reason, state.exit_code) == (ContainerPhase.TERMINATED, "Error", 3)
    assert finished.stop_cause is StopCause.COMPLETED
    assert [record.seq for record in bench.peer.records] == sorted(
        {record.seq for record in bench.peer.records}
    )
    assert Path(layout.claim).read_text().startswith("supervisor 77 ")
    assert bench.peer.hellos[0].job_id == 77
    assert not list((bench.directory / f"hpk-{os.getuid()}").glob("77*"))


@pytest.mark.parametrize("owner", ["revoked\n", "supervisor 76 n1 0011\n"])
def test_a_claimed_attempt_runs_nothing(bench: Bench, owner: str) -> None:
    layout = bench.attempt("touch", str(bench.directory / "canary"))
    Path(layout.claim).write_text(owner)
    assert bench.start(layout).wait(30) == 0
    assert Path(layout.claim).read_text() == owner
    assert not Path(layout.record).exists()
    assert not (bench.directory / "canary").exists()
    assert not bench.peer.hellos


def test_two_supervisors_of_one_attempt_run_it_once(bench: Bench) -> None:
    counter = bench.directory / "runs"
    layout = bench.attempt("sh", "-c", f"echo run >> '{counter}'")
    both = [bench.start(layout, str(job_id)) for job_id in (77, 78)]
    assert [process.wait(30) for process in both] == [0, 0]
    assert counter.read_text() == "run\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("no-such-binary",), '"no-such-binary": executable file not found in $PATH'),
        (("/no/such",), '"/no/such": stat /no/such: no such file or directory'),
        (("/etc/passwd",), '"/etc/passwd": permission denied'),
        (("",), "no command specified"),
        (("true", "a\0b"), "null"),
    ],
)
def test_what_cannot_be_started_says_so(bench: Bench, argv: tuple[str, ...], message: str) -> None:
    layout = bench.attempt(*argv)
    assert bench.start(layout).wait(30) == 128
    state = read_record(layout).containers[0].state
    assert state.reason == "StartError"
    assert state.exit_code == 128
    assert message in state.message
    assert state.message.startswith('failed to start container "main": ')


def test_a_runtime_that_fails_is_quoted(bench: Bench) -> None:
    program = bench.directory / "bin" / "apptainer"
    program.write_text("#!/bin/sh\necho FATAL: no such image >&2\nexit 255\n")
    layout = bench.attempt("true")
    assert bench.start(layout).wait(30) == 128
    state = read_record(layout).containers[0].state
    assert (state.reason, "FATAL: no such image" in state.message) == ("StartError", True)


def test_a_node_without_the_runtime_fails_the_setup(bench: Bench) -> None:
    layout = bench.attempt("true", runtime="no-such-runtime")
    assert bench.start(layout).wait(30) == 1
    record = read_record(layout)
    assert record.stop_cause is StopCause.SETUP_FAILED
    assert "no-such-runtime" in record.message
    assert record.containers[0].state.exit_code == 128


def test_stop_asks_first(bench: Bench) -> None:
    layout = bench.attempt(
        "sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    )
    process = bench.start(layout)
    record = bench.peer.wait_running()
    assert bench.peer.log_data == {}
    while b"up" not in bench.peer.read_log(1, record.containers[0].log_path, wait=False):
        pass
    bench.peer.send(frames.Stop(3600))
    finished = bench.peer.wait_finished()
    assert process.wait(30) == 5
    assert finished.stop_cause is StopCause.REQUESTED
    assert finished.containers[0].state.exit_code == 5


def test_a_later_stop_shortens_the_grace_period(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", "trap '' TERM; while :; do sleep 0.01; done")
    process = bench.start(layout)
    bench.peer.wait_running()
    bench.peer.send(frames.Stop(3600))
    bench.peer.wait_record(lambda record: record.phase is PodPhase.STOPPING)
    bench.peer.send(frames.Stop(0))
    state = bench.peer.wait_finished().containers[0].state
    assert (state.exit_code, state.signal) == (137, 9)
    assert process.wait(30) == 137


def test_the_images_stop_signal_is_used(bench: Bench) -> None:
    plan = container(("x",), "/image.sif")
    image = replace(plan.image, config=ImageConfig(stop_signal="SIGQUIT"))
    script = "trap 'exit 7' QUIT; echo ready; while :; do sleep 0.01; done"
    layout = bench.attempt("sh", "-c", script, image=image)
    process = bench.start(layout)
    # Process 1 of a namespace does not get a signal that it has no trap for.
    wait_until(lambda: any("ready" in log.read_text() for log in Path(layout.logs).glob("*/0.log")))
    bench.peer.send(frames.Stop(3600))
    assert process.wait(30) == 7


def test_the_stop_file_stops_where_no_channel_is(bench: Bench) -> None:
    bench.peer.close()
    layout = bench.attempt("sleep", "1000")
    process = bench.start(layout)
    wait_until(lambda: Path(layout.record).exists())
    Path(layout.stop_request).write_text(codec.dumps(frames.Stop(0)))
    assert process.wait(30) != 0
    record = read_record(layout)
    assert record.stop_cause is StopCause.REQUESTED
    assert record.containers[0].state.reason == "ContainerStatusUnknown"


def test_sigterm_from_slurm_is_recorded_before_anything_else(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", "trap '' TERM; while :; do sleep 0.01; done")
    process = bench.start(layout)
    bench.peer.wait_running()
    process.send_signal(signal.SIGTERM)
    bench.peer.wait_record(lambda record: record.stop_cause is StopCause.SIGNALLED)
    assert read_record(layout).stop_cause is StopCause.SIGNALLED
    process.kill()


def test_an_orphan_gives_its_node_back(bench: Bench) -> None:
    bench.peer.give_bundle = False
    bench.peer.close()
    layout = bench.attempt("sleep", "1000", orphan_timeout_s=1)
    bench.start(layout).wait(30)
    record = read_record(layout)
    assert record.stop_cause is StopCause.ORPHANED
    assert "no control plane for 1 s" in record.message


def test_a_heartbeat_keeps_a_pod_without_channel_alive(bench: Bench) -> None:
    """Without one it ends by itself, as the test before shows. The time is long for the sake of a
    machine that stands still."""
    layout = bench.attempt("sleep", "1000", orphan_timeout_s=8)
    process = bench.start(layout)
    bench.peer.wait_running()
    bench.peer.close()
    heartbeat = bench.directory / "heartbeat"
    deadline = time.monotonic() + 12
    while time.monotonic() < deadline:
        heartbeat.write_text("alive")
        assert process.poll() is None
        time.sleep(0.2)
    assert read_record(layout).stop_cause is None


def test_the_deadline_stops_the_pod(bench: Bench) -> None:
    script = "trap 'exit 9' TERM; while :; do sleep 0.1; done"
    layout = bench.attempt("sh", "-c", script, active_deadline_s=1)
    assert bench.start(layout).wait(30) == 9
    assert read_record(layout).stop_cause is StopCause.DEADLINE


def test_a_program_without_a_handler_uses_up_its_grace_period(bench: Bench) -> None:
    """It is process 1 of its PID namespace, to which the kernel gives no other signal."""
    layout = bench.attempt("sleep", "1000", active_deadline_s=1, grace_period_s=3)
    assert bench.start(layout).wait(30) == 137
    record = read_record(layout)
    assert record.stop_cause is StopCause.DEADLINE


def test_kill_dash_nine_of_the_supervisor_ends_everything(bench: Bench) -> None:
    script = "(setsid sleep 1000 &); trap '' TERM HUP INT; echo up; while :; do sleep 1; done"
    layout = bench.attempt("sh", "-c", script, bench.marker, env=env(MARKER=bench.marker))
    process = bench.start(layout)
    record = bench.peer.wait_running()
    while b"up" not in bench.peer.read_log(1, record.containers[0].log_path, wait=False):
        pass
    assert len(bench.marked()) >= 5
    process.kill()
    process.wait()
    wait_until(lambda: not bench.marked())


def test_daemons_do_not_outlive_their_container_nor_hold_its_log(bench: Bench) -> None:
    script = "(setsid sleep 1000 &); echo done"
    layout = bench.attempt("sh", "-c", script, env=env(MARKER=bench.marker))
    process = bench.start(layout)
    assert process.wait(30) == 0
    wait_until(lambda: not bench.marked())
    log = Path(layout.root) / read_record(layout).containers[0].log_path
    assert log_texts(log.read_bytes()) == b"done\n"


def test_restarts_back_off_and_keep_a_log_each(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", "echo ran; exit 2", restart_policy=RestartPolicy.ON_FAILURE)
    process = bench.start(layout)
    waiting = bench.peer.wait_record(
        lambda record: record.containers[0].state.reason == "CrashLoopBackOff"
    ).containers[0]
    assert waiting.state.message.startswith("back-off 10s")
    assert waiting.last_state is not None
    assert waiting.last_state.exit_code == 2
    again = bench.peer.wait_record(lambda record: record.containers[0].restart_count == 1)
    assert again.containers[0].log_path.endswith("/1.log")
    bench.peer.send(frames.Stop(0))
    assert process.wait(30) != 0
    assert log_texts((Path(layout.root) / waiting.log_path).read_bytes()) == b"ran\n"


def test_the_channel_is_found_again_and_told_the_whole_record(bench: Bench) -> None:
    layout = bench.attempt("sleep", "1000")
    process = bench.start(layout)
    seen = bench.peer.wait_running()
    bench.peer.drop()
    bench.peer.wait(lambda: len(bench.peer.hellos) == 2)
    bench.peer.wait(lambda: bench.peer.records[-1].seq >= seen.seq)
    moved = Peer.__new__(Peer)
    directory = bench.directory / "elsewhere"
    directory.mkdir()
    moved.__init__(directory)  # type: ignore[misc]
    try:
        # The CA is pinned by path: the control plane that moved has the same one.
        for name in ("ca.crt", "endpoint.json"):
            text = (directory / name).read_text()
            (bench.directory / name).write_text(text)
        bench.peer.close()
        moved.wait(lambda: bool(moved.hellos) and bool(moved.records))
        moved.send(frames.Stop(0))
        moved.wait_finished()
        assert process.wait(30) in (137, 143)
    finally:
        moved.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\0" * len(text),
        lambda text: json.dumps(json.loads(text) | {"channel_port": 10**20}),
        lambda text: json.dumps(json.loads(text) | {"address": "\0"}),
    ],
)
def test_a_damaged_endpoint_is_read_again(bench: Bench, damage: Callable[[str], str]) -> None:
    bench.peer.endpoint.write_text(damage(bench.peer.endpoint.read_text()))
    layout = bench.attempt("true")
    process = bench.start(layout)
    wait_until(lambda: "cannot reach the kubelet" in Path(layout.job_output).read_text())
    bench.peer.publish()
    bench.peer.wait_finished()
    assert process.wait(30) == 0


def test_a_reject_without_stop_leaves_the_pod_alone(bench: Bench) -> None:
    layout = bench.attempt("sleep", "1000")
    process = bench.start(layout)
    bench.peer.wait_running()
    bench.peer.reject = frames.Reject("a later protocol", stop=False)
    bench.peer.drop()
    wait_until(lambda: len(bench.peer.hellos) >= 4)
    assert Path(layout.job_output).read_text().count("a later protocol") <= 2  # not each time
    known, bench.peer.reject = len(bench.peer.records), None
    wait_until(lambda: len(bench.peer.records) > known)
    bench.peer.send(frames.Stop(0))
    bench.peer.wait_finished()
    assert process.wait(30) in (137, 143)


def test_a_reject_with_stop_ends_the_pod(bench: Bench) -> None:
    bench.peer.reject = frames.Reject("the Pod is gone", stop=True)
    layout = bench.attempt("touch", str(bench.directory / "canary"))
    bench.start(layout).wait(30)
    assert not (bench.directory / "canary").exists()
    assert read_record(layout).stop_cause is StopCause.REQUESTED


def test_a_stranger_on_the_port_gets_no_token(bench: Bench, tmp_path: Path) -> None:
    directory = tmp_path / "stranger"
    directory.mkdir()
    stranger = Peer(directory)
    try:
        (bench.directory / "endpoint.json").write_text(stranger.endpoint.read_text())
        layout = bench.attempt("true", orphan_timeout_s=1)
        bench.start(layout).wait(30)
        assert not stranger.hellos
        assert "certificate" in Path(layout.job_output).read_text()
    finally:
        stranger.close()


def test_log_reads_wait_for_more_and_stay_in_the_pod(bench: Bench) -> None:
    go = bench.directory / "go"
    layout = bench.attempt(
        "sh", "-c", f"echo one; while [ ! -e '{go}' ]; do sleep 0.01; done; echo two"
    )
    process = bench.start(layout)
    path = bench.peer.wait_running().containers[0].log_path
    bench.peer.send(frames.LogRead(7, path, 0, True))
    bench.peer.wait(lambda: 7 in bench.peer.log_data)
    first = bench.peer.log_data.pop(7)[0]
    assert not first.eof
    for bad in ("../token", "token", "logs/main/9.log", "/etc/passwd"):
        with pytest.raises(OSError, match="no log of this pod"):
            bench.peer.read_log(9, bad, wait=True)
    bench.peer.send(frames.LogRead(8, path, 1 << 30, True))
    bench.peer.send(frames.LogCancel(8))
    assert log_texts(bench.peer.read_log(11, path, wait=False)) == b"one\n"
    go.touch()
    assert log_texts(bench.peer.read_log(10, path, wait=True)) == b"one\ntwo\n"
    assert process.wait(30) == 0
    assert 8 not in bench.peer.log_data


def test_much_output_arrives_whole(bench: Bench) -> None:
    count = 100_000
    script = f"import sys\nfor n in range({count}): print('line', n)\nsys.stderr.write('x' * 40000)"
    layout = bench.attempt(PYTHON, "-c", script)
    assert bench.start(layout).wait(60) == 0
    log = (Path(layout.root) / read_record(layout).containers[0].log_path).read_bytes()
    assert log_texts(log) == b"".join(b"line %d\n" % number for number in range(count))
    assert log_texts(log, "stderr") == b"x" * 40000


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"plan": 3}', "\x00"])
def test_a_broken_spec_runs_nothing(bench: Bench, text: str) -> None:
    layout = bench.attempt("true")
    Path(layout.spec).write_text(text)
    assert bench.start(layout).wait(30) == 1
    assert not Path(layout.record).exists()
