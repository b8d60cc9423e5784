"""Probes run by the supervisor as a process: real commands, real sockets."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

from hpk.model import frames
from hpk.model.bundle import Bundle, ContainerBundle
from hpk.model.handlers import (
    ContainerProbes,
    Handler,
    HttpGetAction,
    ProbePlan,
    TcpSocketAction,
)
from hpk.model.plan import RestartPolicy
from hpk.model.record import ContainerPhase, ContainerRecord, SupervisorRecord
from tests.kubelet_settings import free_port
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container, env

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)
SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print(self.path, self.headers["Host"], self.headers["User-Agent"], flush=True)
        self.send_response(int(self.path.strip("/") or 200))
        self.send_header("Location", "http://elsewhere.invalid/")
        self.end_headers()
        self.wfile.write(b"a secret")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
open(sys.argv[1], "w").write(str(server.server_port))
server.serve_forever()
"""


def main(record: SupervisorRecord) -> ContainerRecord:
    return record.containers[0]


def messages(record: SupervisorRecord, reason: str) -> list[str]:
    return [event.message for event in record.events if event.reason == reason]


def every_second(handler: Handler, **changes: int) -> ProbePlan:
    return ProbePlan(handler, period_s=1, timeout_s=changes.pop("timeout_s", 5), **changes)


def executing(command: str) -> list[int]:
    """The processes whose command line is this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0") == [
                word.encode() for word in command.split()
            ]:
                found.append(int(entry.name))
    return found


def file_exists(path: Path) -> Handler:
    return Handler(exec=("test", "-e", str(path)))


def test_readiness_comes_and_goes(bench: Bench) -> None:
    flag = bench.directory / "fl'ag"
    probes = ContainerProbes(readiness=every_second(file_exists(flag), failure_threshold=1))
    process = bench.start(bench.attempt("sleep", "1000", probes=probes))
    unready = bench.peer.wait_record(lambda r: bool(r.events))
    assert (main(unready).started, main(unready).ready) == (True, False)
    assert main(unready).state.phase is ContainerPhase.RUNNING
    assert messages(unready, "Unhealthy") == ["Readiness probe failed: "]
    flag.touch()
    ready = bench.peer.wait_record(lambda r: bool(main(r).ready))
    flag.unlink()
    bench.peer.wait_record(lambda r: r.seq > ready.seq and main(r).ready is False)
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)
    assert bench.peer.records[-1].containers[0].ready is False


def test_a_failed_liveness_probe_restarts_the_container(bench: Bench) -> None:
    runs = bench.directory / "runs"
    flag = bench.directory / "flag"
    script = f"echo >> '{runs}'; touch '{flag}'; trap 'exit 9' TERM; while :; do sleep 0.1; done"
    probes = ContainerProbes(liveness=every_second(file_exists(flag), failure_threshold=2))
    layout = bench.attempt("sh", "-c", script, probes=probes, restart_policy=RestartPolicy.ALWAYS)
    process = bench.start(layout)
    bench.peer.wait_record(lambda r: bool(main(r).ready))
    wait_until(flag.exists)
    flag.unlink()
    again = bench.peer.wait_record(lambda r: main(r).restart_count == 1 and bool(main(r).ready))
    last = main(again).last_state
    assert last is not None
    assert last.exit_code == 9
    assert messages(again, "Killing") == ["Container main failed liveness probe, will be restarted"]
    (unhealthy,) = [event for event in again.events if event.reason == "Unhealthy"]
    assert (unhealthy.message, unhealthy.count) == ("Liveness probe failed: ", 2)
    wait_until(lambda: runs.read_text() == "\n\n")
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)


def test_a_container_deaf_to_its_liveness_probe_is_killed(bench: Bench) -> None:
    probe = every_second(Handler(exec=("false",)), failure_threshold=1, grace_period_s=1)
    layout = bench.attempt(
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 0.1; done",
        probes=ContainerProbes(liveness=probe),
    )
    assert bench.start(layout).wait(60) == 137
    finished = bench.peer.wait_finished()
    assert main(finished).state.exit_code == 137
    assert messages(finished, "Killing") == ["Container main failed liveness probe"]


@pytest.mark.parametrize("kind", ["liveness", "startup"])
def test_a_probe_that_falls_with_its_container_has_not_failed(bench: Bench, kind: str) -> None:
    """The kernel kills it before it lets process 1 end."""
    asked = bench.directory / "asked"
    command = ("sh", "-c", f"echo > '{asked}'; exec sleep 1000")
    probe = every_second(Handler(exec=command), failure_threshold=1, timeout_s=60)
    script = f"until [ -e '{asked}' ]; do sleep 0.1; done"
    layout = bench.attempt(
        "sh",
        "-c",
        script,
        probes=ContainerProbes(**{kind: probe}),
        restart_policy=RestartPolicy.ON_FAILURE,
    )
    assert bench.start(layout).wait(60) == 0
    finished = bench.peer.wait_finished()
    assert main(finished).restart_count == 0
    assert main(finished).state.exit_code == 0
    assert finished.events == ()


def test_a_startup_probe_gates_the_others_and_the_next_container(bench: Bench) -> None:
    flag = bench.directory / "flag"
    touched = bench.directory / "touched"
    side = container(
        ("sleep", "1000"),
        "/image.sif",
        name="side",
        restart_always=True,
        probes=ContainerProbes(
            startup=every_second(file_exists(flag), failure_threshold=100),
            liveness=every_second(Handler(exec=("sh", "-c", f"echo >> '{touched}'"))),
        ),
    )
    plan = container(("sleep", "1000"), "/image.sif")
    process = bench.start(bench.attempt_of(plan, init_containers=(side,)))
    waiting = bench.peer.wait_record(lambda r: bool(messages(r, "Unhealthy")))
    (init,) = waiting.init_containers
    assert (init.state.phase, init.started, init.ready) == (ContainerPhase.RUNNING, False, False)
    assert main(waiting).state.phase is ContainerPhase.WAITING
    assert not touched.exists()
    flag.touch()
    running = bench.peer.wait_record(lambda r: main(r).state.phase is ContainerPhase.RUNNING)
    assert running.init_containers[0].started
    wait_until(touched.exists)
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)


def test_commands_that_take_too_long_are_killed_with_what_they_started(bench: Bench) -> None:
    began, left = bench.directory / "began", f"sleep 1000.{os.getpid()}"
    command = f"{left} & echo > '{began}'; wait"
    # Asked once, when the container starts: whatever of it is there then has outlived its time.
    probe = ProbePlan(Handler(exec=("sh", "-c", command)), period_s=3600, timeout_s=1)
    layout = bench.attempt("sleep", "1000", probes=ContainerProbes(readiness=probe))
    process = bench.start(layout)
    failed = bench.peer.wait_record(lambda r: bool(r.events))
    assert messages(failed, "Unhealthy") == [
        f'Readiness probe failed: command timed out: "sh -c {command}" timed out after 1s'
    ]
    wait_until(began.exists)
    wait_until(lambda: not executing(left))
    assert process.poll() is None
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)


def test_a_command_that_cannot_be_started_says_nothing_of_the_container(bench: Bench) -> None:
    probe = every_second(Handler(exec=("no-such-program",)), failure_threshold=1)
    process = bench.start(
        bench.attempt("sleep", "1000", probes=ContainerProbes(liveness=probe, readiness=probe))
    )
    record = bench.peer.wait_record(lambda r: len(r.events) == 2)
    text = 'exec: "no-such-program": executable file not found in $PATH'
    assert sorted(messages(record, "Unhealthy")) == [
        f"Liveness probe errored and resulted in unknown state: {text}",
        f"Readiness probe errored and resulted in unknown state: {text}",
    ]
    assert (main(record).started, main(record).ready) == (True, False)
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)


@pytest.mark.parametrize(
    ("path", "ready", "reason", "text"),
    [
        ("/204", True, "", ""),
        (
            "/302",
            True,
            "ProbeWarning",
            "Readiness probe warning: Probe terminated redirects, Response body: a secret",
        ),
        (
            "/503",
            False,
            "Unhealthy",
            "Readiness probe failed: HTTP probe failed with statuscode: 503",
        ),
    ],
)
def test_answers_to_http_get(bench: Bench, path: str, ready: bool, reason: str, text: str) -> None:
    server = bench.directory / "server.py"
    server.write_text(SERVE)
    port_file = bench.directory / "port"
    # The port is free when it is chosen, and the probe is planned before the server has it.
    port = free_port()
    server.write_text(SERVE.replace('("127.0.0.1", 0)', f'("127.0.0.1", {port})'))
    action = HttpGetAction(port=port, path=path, headers=(("Host", "na.me"),))
    probes = ContainerProbes(
        startup=every_second(Handler(tcp_socket=TcpSocketAction(port)), failure_threshold=100),
        readiness=every_second(Handler(http_get=action)),
    )
    layout = bench.attempt(sys.executable, str(server), str(port_file), probes=probes)
    process = bench.start(layout)
    wanted = bench.peer.wait_record(
        lambda r: bool(main(r).ready) if ready else text in messages(r, reason)
    )
    assert main(wanted).ready is ready
    if reason:
        # The startup probe may have failed before it, as long as the server was not there yet.
        said = [one for one in messages(wanted, reason) if one.startswith("Readiness")]
        assert said == [text]
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)
    log = (Path(layout.root) / main(wanted).log_path).read_text()
    assert f" {path} na.me kube-probe/1.37" in log


def test_nobody_listens(bench: Bench) -> None:
    port = free_port()
    probes = ContainerProbes(
        liveness=every_second(Handler(tcp_socket=TcpSocketAction(port)), failure_threshold=100),
        readiness=every_second(Handler(http_get=HttpGetAction(port))),
    )
    process = bench.start(bench.attempt("sleep", "1000", probes=probes))
    record = bench.peer.wait_record(lambda r: len(r.events) == 2)
    refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    assert sorted(messages(record, "Unhealthy")) == [
        f"Liveness probe failed: {refused}",
        f'Readiness probe failed: Get "http://127.0.0.1:{port}/": {refused}',
    ]
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)


def test_a_probe_keeps_the_environment_that_its_container_began_with(bench: Bench) -> None:
    """As when the ConfigMap is deleted while it runs."""
    asked = bench.directory / "asked"
    script = f'echo "$V" >> "{asked}"; [ "$V" = v ]'
    probe = every_second(Handler(exec=("sh", "-c", script)), failure_threshold=1)
    found = ContainerBundle("main", env(PATH="/usr/bin:/bin", V="v"), ("sleep", "1000"))
    bench.peer.bundle = Bundle((), (), (found,))
    plan = container(("false",), "/image.sif", late=True, probes=ContainerProbes(readiness=probe))
    process = bench.start(bench.attempt_of(plan))
    bench.peer.wait_record(lambda r: bool(main(r).ready))
    gone = ContainerBundle("main", (), (), "configmap is gone", "CreateContainerConfigError")
    bench.peer.send(frames.BundleReply(0, Bundle((), (), (gone,))))
    before = asked.read_text().count("\n")
    wait_until(lambda: asked.read_text().count("\n") >= before + 3)
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)
    assert set(asked.read_text().split("\n")) == {"v", ""}
    assert not any(r.events for r in bench.peer.records)
