"""attach to containers of the supervisor as a process, and their standard input and terminals."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpk.model import frames
from hpk.model.frames import StreamError
from hpk.model.plan import RestartPolicy
from hpk.model.stream_frames import STDERR, STDOUT
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container, env, log_texts
from tests.unit.test_supervisor_probes import executing

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)
LOG = "logs/main/0.log"
ECHO = "while read -r line; do echo got $line; echo wrong $line >&2; done; echo end; exit 7"
SIZE = frames.TerminalSize(91, 31)


def test_the_input_stays_open_for_the_next(bench: Bench) -> None:
    process = bench.start(bench.attempt("sh", "-c", ECHO, stdin=True))
    bench.peer.wait_running()
    first = bench.peer.streams.attach(stdin=True)
    watches = bench.peer.streams.attach(stderr=False)
    first.write(b"one\n")
    first.wait_said(b"got one\n")
    first.wait_said(b"wrong one\n", STDERR)
    first.write_end()
    assert first.run() == (b"got one\n", b"wrong one\n", None)
    second = bench.peer.streams.attach(stdin=True)
    second.write(b"two\n")
    second.wait_said(b"got two\n")
    second.close()
    assert second.wait_closed().error is StreamError.NONE
    watches.wait_said(b"got two\n")
    bench.peer.send(frames.Stop(0))
    assert watches.run() == (b"got one\ngot two\n", b"", None)
    assert process.wait(60)
    bench.peer.wait_finished()


def test_stdin_once_ends_with_the_first(bench: Bench) -> None:
    process = bench.start(bench.attempt("sh", "-c", ECHO, stdin=True, stdin_once=True))
    bench.peer.wait_running()
    first = bench.peer.streams.attach(stdin=True)
    first.write(b"one\n")
    first.wait_said(b"got one\n")
    late = bench.peer.streams.attach(stdin=True)
    late.write(b"nobody reads it\n")
    late.write_end()
    first.write_end()
    assert first.run() == (b"got one\nend\n", b"wrong one\n", None)
    assert late.run()[0] == b"end\n"
    assert process.wait(60) == 7
    finished = bench.peer.wait_finished()
    assert finished.containers[0].state.exit_code == 7


def test_stdin_once_ends_with_a_client_that_is_lost(bench: Bench) -> None:
    process = bench.start(bench.attempt("sh", "-c", ECHO, stdin=True, stdin_once=True))
    bench.peer.wait_running()
    first = bench.peer.streams.attach(stdin=True)
    first.wait_open()
    bench.peer.drop()
    assert process.wait(60) == 7


def test_a_container_without_stdin_reads_nothing(bench: Bench) -> None:
    go = bench.directory / "go"
    script = f"cat; echo read; until [ -e '{go}' ]; do sleep 0.05; done; echo end"
    process = bench.start(bench.attempt("sh", "-c", script))
    bench.peer.wait_running()
    stream = bench.peer.streams.attach(stdin=True)
    stream.write(b"x" * 200_000)
    stream.write_end()
    go.touch()
    stream.wait_said(b"end\n")
    assert stream.run()[2] is None
    assert process.wait(60) == 0
    bench.peer.wait_finished()


@pytest.mark.parametrize("uid", [0, 12])
def test_a_container_with_a_terminal(bench: Bench, uid: int) -> None:
    script = "trap 'stty size' WINCH; echo $TERM; id -u >&2; while :; do read -r x && eval $x; done"
    layout = bench.attempt("sh", "-c", script, stdin=True, tty=True, uid=uid, env=env(PS1="> "))
    process = bench.start(layout)
    bench.peer.wait_running()
    stream = bench.peer.streams.attach(stdin=True, size=SIZE)
    stream.wait_said(b"31 91\r\n")
    stream.resize(7, 5)
    stream.wait_said(b"5 7\r\n")
    stream.close()
    again = bench.peer.streams.attach(stdin=True)
    again.write(b"echo re''ady; sleep 4327\n")
    again.wait_said(b"ready\r\n")
    wait_until(lambda: bool(executing("sleep 4327")))
    again.write(b"\x03")
    again.wait_said(b"^C")
    assert again.run()[1:] == (b"", None)
    assert process.wait(60) == 130
    bench.peer.wait_finished()
    log = Path(layout.root, LOG).read_bytes()
    assert f"xterm\r\n{uid}\r\n".encode() in log_texts(log)
    assert log_texts(log, "stderr") == b""


def test_who_does_not_read_is_cut_off_and_nobody_waits_for_him(bench: Bench) -> None:
    """Six megabytes are on their way to him by then: pipes, queue and window."""
    go = bench.directory / "go"
    wait = f"until [ -e '{go}'.$n ]; do sleep 0.05; done"
    script = f"for n in 1 2 3; do {wait}; yes {'x' * 99} | head -n 20000; done; sleep 1000"
    process = bench.start(bench.attempt("sh", "-c", script))
    bench.peer.wait_running()
    sleeps, reads = bench.peer.streams.attach(), bench.peer.streams.attach()
    sleeps.reads = False
    reads.wait_open()
    for number in (1, 2, 3):
        go.with_suffix(f".{number}").touch()
        reads.wait(lambda n=number: len(reads.said[STDOUT]) == n * 2_000_000)  # type: ignore[misc]
    sleeps.reads = True
    sleeps.allow()
    closed = sleeps.wait_closed()
    assert closed.error is StreamError.LOST
    assert "faster" in closed.message
    assert 0 < len(sleeps.said[STDOUT]) < 6_000_000
    bench.peer.send(frames.Stop(0))
    assert process.wait(60)
    assert reads.run()[2] is None


def test_for_who_types_the_container_waits(bench: Bench) -> None:
    line = "x" * 99
    script = f"read _; yes {line} | head -n 200000; echo end"
    process = bench.start(bench.attempt("sh", "-c", script, stdin=True, stdin_once=True))
    bench.peer.wait_running()
    slow = bench.peer.streams.attach(stdin=True)
    slow.reads = False
    slow.write(b"go\n")
    said = slow.said[STDOUT]
    while not said.endswith(b"end\n"):
        came = len(said)
        slow.allow()
        slow.wait(lambda came=came: len(said) > came)  # type: ignore[misc]
    assert len(said) == 200_000 * 100 + 4
    assert slow.run()[2] is None
    assert process.wait(60) == 0


def test_the_next_start_is_attached_to_anew(bench: Bench) -> None:
    process = bench.start(
        bench.attempt(
            "sh", "-c", ECHO, stdin=True, stdin_once=True, restart_policy=RestartPolicy.ALWAYS
        )
    )
    bench.peer.wait_running()
    for number in range(2):
        bench.peer.wait_record(
            lambda r, number=number: (
                r.containers[0].restart_count == number  # type: ignore[misc]
                and bool(r.containers[0].ready)
            )
        )
        stream = bench.peer.streams.attach(stdin=True)
        stream.write(f"{number}\n".encode())
        stream.wait_said(f"got {number}\n".encode())
        if number == 0:
            stream.write_end()
            assert stream.run()[0] == b"got 0\nend\n"
    bench.peer.send(frames.Stop(0))
    assert process.wait(60)


def test_attach_needs_a_container_that_runs(bench: Bench) -> None:
    process = bench.start(
        bench.attempt_of(
            container(("sleep", "1000"), "/image.sif"),
            container(("true",), "/image.sif", name="done"),
        )
    )
    bench.peer.wait_record(lambda r: r.containers[1].state.exit_code == 0)
    closed = bench.peer.streams.attach("done").wait_closed()
    assert (closed.error, closed.message) == (
        StreamError.NOT_FOUND,
        'container not found ("done")',
    )
    bench.peer.send(frames.Stop(0))
    assert process.wait(60)
