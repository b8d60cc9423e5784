"""Lifecycle hooks run by the supervisor as a process."""

from __future__ import annotations

import os
import socketserver
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from hpk.model import frames
from hpk.model.handlers import ContainerProbes, Handler, HttpGetAction, Lifecycle, ProbePlan
from hpk.model.plan import RestartPolicy
from hpk.model.record import ContainerPhase, SupervisorRecord
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)


def shell(script: str) -> Handler:
    return Handler(exec=("sh", "-c", script))


def told(record: SupervisorRecord) -> list[tuple[str, str, bool]]:
    return [(event.reason, event.message, event.is_warning) for event in record.events]


def until_stopped(tell: Path) -> tuple[str, str, str]:
    """A program that says in ``tell`` that it was told to end; ``tell.up`` is there when it can."""
    script = (
        f"trap 'echo TERM >> {tell}; exit 0' TERM; touch {tell}.up; while :; do sleep 0.05; done"
    )
    return "sh", "-c", script


def is_up(tell: Path) -> bool:
    return tell.with_suffix(".up").exists()


def test_a_container_runs_when_its_post_start_hook_is_done(bench: Bench) -> None:
    go = bench.directory / "go"
    began = bench.directory / "began"
    hook = shell(f"touch {began}; while [ ! -e {go} ]; do sleep 0.05; done")
    probe = ProbePlan(Handler(exec=("true",)), period_s=1)
    layout = bench.attempt(
        "sleep",
        "1000",
        lifecycle=Lifecycle(post_start=hook),
        probes=ContainerProbes(readiness=probe),
    )
    process = bench.start(layout)
    wait_until(began.exists)
    assert bench.peer.records[-1].containers[0].state.phase is ContainerPhase.WAITING
    go.touch()
    bench.peer.wait_record(lambda r: bool(r.containers[0].ready))
    bench.peer.send(frames.Stop(0))
    assert process.wait(30)


def test_a_failed_post_start_hook_ends_the_container(bench: Bench) -> None:
    tell = bench.directory / "told"
    hook = shell(f"while [ ! -e {tell}.up ]; do sleep 0.05; done; echo a secret >&2; exit 1")
    layout = bench.attempt(*until_stopped(tell), lifecycle=Lifecycle(post_start=hook))
    assert bench.start(layout).wait(30) == 0
    finished = bench.peer.wait_finished()
    assert told(finished) == [
        ("FailedPostStartHook", "PostStartHook failed", True),
        ("Killing", "FailedPostStartHook", False),
    ]
    assert tell.read_text() == "TERM\n"


@pytest.mark.parametrize(
    ("then", "grace_period_s"),
    [
        pytest.param("", 30, id="in-time"),
        # The container has two seconds all the same.
        pytest.param("; exec sleep 1000", 1, id="too-long"),
    ],
)
def test_pre_stop_comes_before_the_signal(bench: Bench, then: str, grace_period_s: int) -> None:
    tell = bench.directory / "told"
    hook = Lifecycle(pre_stop=shell(f"echo hook >> {tell}{then}"))
    process = bench.start(bench.attempt(*until_stopped(tell), lifecycle=hook))
    wait_until(lambda: is_up(tell))
    bench.peer.send(frames.Stop(grace_period_s))
    assert process.wait(60) == 0
    assert tell.read_text() == "hook\nTERM\n"


def test_no_pre_stop_without_grace(bench: Bench) -> None:
    tell = bench.directory / "told"
    layout = bench.attempt(
        "sleep", "1000", lifecycle=Lifecycle(pre_stop=shell(f"echo hook >> {tell}"))
    )
    process = bench.start(layout)
    bench.peer.wait_running()
    bench.peer.send(frames.Stop(0))
    assert process.wait(60)
    assert not tell.exists()


def test_pre_stop_that_fails_and_sleep(bench: Bench) -> None:
    tell, other = bench.directory / "told", bench.directory / "other"
    containers = (
        container(
            until_stopped(tell),
            "/image.sif",
            lifecycle=Lifecycle(pre_stop=Handler(exec=("false",))),
        ),
        container(
            until_stopped(other),
            "/image.sif",
            name="other",
            lifecycle=Lifecycle(pre_stop=Handler(sleep_s=1)),
        ),
    )
    process = bench.start(bench.attempt_of(*containers))
    bench.peer.wait_record(
        lambda r: all(c.state.phase is ContainerPhase.RUNNING for c in r.containers)
    )
    wait_until(lambda: is_up(tell) and is_up(other))
    bench.peer.send(frames.Stop(30))
    assert process.wait(60) == 0
    assert tell.read_text() == other.read_text() == "TERM\n"
    assert told(bench.peer.wait_finished()) == [("FailedPreStopHook", "PreStopHook failed", True)]


def test_pre_stop_of_a_container_that_fails_its_liveness_probe(bench: Bench) -> None:
    tell = bench.directory / "told"
    layout = bench.attempt(
        *until_stopped(tell),
        lifecycle=Lifecycle(pre_stop=shell(f"echo hook >> {tell}")),
        probes=ContainerProbes(
            liveness=ProbePlan(shell(f"test ! -e {tell}.up"), period_s=1, failure_threshold=1)
        ),
        restart_policy=RestartPolicy.NEVER,
    )
    assert bench.start(layout).wait(60) == 0
    assert tell.read_text() == "hook\nTERM\n"


def test_sidecars_run_their_hook_and_end_when_the_others_have(bench: Bench) -> None:
    tell = bench.directory / "told"
    side = container(
        until_stopped(tell),
        "/image.sif",
        name="side",
        restart_always=True,
        lifecycle=Lifecycle(pre_stop=shell(f"echo hook >> {tell}")),
    )
    script = f"while [ ! -e {tell}.up ]; do sleep 0.05; done; echo main >> {tell}"
    plan = container(("sh", "-c", script), "/image.sif")
    assert bench.start(bench.attempt_of(plan, init_containers=(side,))).wait(60) == 0
    assert tell.read_text() == "main\nhook\nTERM\n"


def test_an_answer_is_enough_and_https_falls_back_to_http(bench: Bench) -> None:
    server = socketserver.TCPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        get = HttpGetAction(
            port=server.server_address[1],
            scheme="HTTPS",
            headers=(("Authorization", "a secret"), ("X-A", "b")),
        )
        layout = bench.attempt(
            "sleep", "1000", lifecycle=Lifecycle(post_start=Handler(http_get=get))
        )
        process = bench.start(layout)
        bench.peer.wait_running()
        running = bench.peer.wait_record(lambda r: bool(r.containers[0].started))
        (fallback,) = running.events
        assert (fallback.reason, fallback.is_warning) == ("LifecycleHTTPFallback", True)
        bench.peer.send(frames.Stop(0))
        assert process.wait(30)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    (request,) = Answers.requests
    assert b"X-A: b" in request
    assert b"Authorization" not in request


class Answers(socketserver.BaseRequestHandler):
    """A web server that speaks no TLS and is never satisfied."""

    requests: ClassVar[list[bytes]] = []

    def handle(self) -> None:
        request = self.request.recv(65536)
        if request.startswith(b"GET "):
            self.requests.append(request)
        self.request.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
