"""exec in containers of the supervisor as a process, through its channel."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk.model import frames
from hpk.model.frames import StreamError
from tests.peer_streams import PeerStreams
from tests.supervisor_bench import Bench, userns_works, wait_until
from tests.supervisor_peer import container, env
from tests.unit.test_supervisor_probes import executing

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)
NASTY = ("a'b", 'c"d', "e\nf", "$(id)", "", "ü", "-n", "`true`", "\\")
SIZE = frames.TerminalSize(91, 31)


@pytest.fixture
def streams(bench: Bench) -> Iterator[PeerStreams]:
    """Of a pod whose container sleeps."""
    process = bench.start(
        bench.attempt("sleep", "1000", uid=12, gid=34, working_dir="/usr", env=env(WHO="me"))
    )
    bench.peer.wait_running()
    yield bench.peer.streams
    bench.peer.send(frames.Stop(0))
    assert process.wait(60)


def test_a_program_is_as_the_containers_own(streams: PeerStreams) -> None:
    tell = 'id -u; id -g; pwd; echo "$WHO"; echo wrong >&2; cat; exit 17'
    out, err, code = streams.exec("sh", "-c", tell).run()
    assert (out, err, code) == (b"12\n34\n/usr\nme\n", b"wrong\n", 17)
    out, _, code = streams.exec("printf", "<%s>", *NASTY).run()
    assert out.decode() == "".join(f"<{word}>" for word in NASTY)
    assert code == 0
    assert streams.exec("sh", "-c", "kill -TERM $$").run()[2] == 128 + 15
    assert streams.exec("sh", "-c", "echo no; echo >&2", stdout=False).run() == (b"", b"\n", 0)


def test_a_program_that_is_missing_is_told_in_the_runtimes_words(streams: PeerStreams) -> None:
    closed = streams.exec("no such").wait_closed()
    assert closed.error is StreamError.NOT_STARTED
    assert closed.message == 'exec: "no such": executable file not found in $PATH'
    closed = streams.exec("ls", container="other").wait_closed()
    assert closed.error is StreamError.NOT_FOUND
    assert closed.message == 'container not found ("other")'


def test_64_mib_go_in_and_come_back(streams: PeerStreams) -> None:
    data = os.urandom(1 << 20) * 64
    stream = streams.exec("cat", stdin=True)
    stream.write(data)
    stream.write_end()
    out, _, code = stream.run()
    assert code == 0
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_a_terminal_has_a_size_and_all_output_of_its_program(streams: PeerStreams) -> None:
    script = "trap 'stty size; exit 3' WINCH; stty size; echo $TERM; echo ready >&2; "
    loop = "while :; do sleep 0.05; done"
    stream = streams.exec("sh", "-c", script + loop, stdin=True, tty=True, size=SIZE)
    stream.wait_said(b"31 91\r\nxterm\r\nready\r\n")
    stream.resize(7, 5)
    assert stream.run() == (b"31 91\r\nxterm\r\nready\r\n5 7\r\n", b"", 3)


def test_a_shell_on_a_terminal_controls_its_jobs(streams: PeerStreams) -> None:
    stream = streams.exec("sh", stdin=True, tty=True)
    stream.write(b"sleep 4326\n")
    wait_until(lambda: bool(executing("sleep 4326")))
    (sleeping,) = executing("sleep 4326")
    stream.write(b"\x1a")
    stream.wait_said(b"Stopped")
    assert state(sleeping) == "T"
    stream.write(b"fg\n")
    wait_until(lambda: state(sleeping) == "S")
    stream.write(b"\x03")
    wait_until(lambda: not executing("sleep 4326"))
    stream.write(b"exit 5\n")
    assert stream.run()[2] == 5


def test_what_a_terminals_program_leaves_behind_does_not_hold_its_client(
    streams: PeerStreams,
) -> None:
    left = "trap '' HUP; sleep 4321 & echo done; exit 6"
    out, _, code = streams.exec("sh", "-c", left, tty=True).run()
    assert (out, code) == (b"done\r\n", 6)
    wait_until(lambda: bool(executing("sleep 4321")))


@pytest.mark.parametrize("by", ["client", "connection"])
def test_who_hangs_up_takes_his_terminal_along(bench: Bench, streams: PeerStreams, by: str) -> None:
    stream = streams.exec("sh", "-c", "echo here; sleep 4322; sleep 4323", tty=True)
    reads = streams.exec("sh", "-c", "echo here; cat; exec sleep 4324", stdin=True)
    stream.wait_said(b"here\r\n")
    reads.wait_said(b"here\n")
    wait_until(lambda: bool(executing("sleep 4322")))
    if by == "client":
        stream.close()
        reads.close()
        assert reads.wait_closed().exit_code is None
    else:
        bench.peer.drop()
        bench.peer.wait(lambda: len(bench.peer.hellos) == 2)
    wait_until(lambda: not executing("sleep 4322"))
    assert not executing("sleep 4323")
    wait_until(lambda: bool(executing("sleep 4324")))  # its input has ended, and that is all


def test_a_program_ends_with_its_container(bench: Bench) -> None:
    process = bench.start(
        bench.attempt("sh", "-c", "read _ < /proc/$$/fd/9 9<>/dev/null; sleep 1000")
    )
    bench.peer.wait_running()
    streams = bench.peer.streams
    stream = streams.exec("sh", "-c", "echo here; sleep 1000; echo and on")
    on_terminal = streams.exec("sh", "-c", "echo here; sleep 1000; echo and on", tty=True)
    stream.wait_said(b"here")
    on_terminal.wait_said(b"here")
    bench.peer.send(frames.Stop(0))
    assert stream.run() == (b"here\n", b"", 137)
    assert on_terminal.run() == (b"here\r\n", b"", 137)
    assert process.wait(60)


def test_init_containers_and_sidecars_are_entered_too(bench: Bench) -> None:
    go = bench.directory / "go"
    wait = ("sh", "-c", f"until [ -e '{go}' ]; do sleep 0.05; done")
    process = bench.start(
        bench.attempt_of(
            container(("sleep", "1000"), "/image.sif", env=env(WHO="main")),
            init_containers=(
                container(("sleep", "1000"), "/image.sif", name="sidecar", restart_always=True),
                container(wait, "/image.sif", name="init", env=env(WHO="init")),
            ),
        )
    )
    bench.peer.wait_record(lambda r: r.init_containers[1].state.started_at_s is not None)
    streams = bench.peer.streams
    assert streams.exec("sh", "-c", "echo $WHO", container="init").run()[0] == b"init\n"
    assert streams.exec("ls").wait_closed().error is StreamError.NOT_FOUND
    go.touch()
    bench.peer.wait_record(lambda r: r.containers[0].state.started_at_s is not None)
    assert streams.exec("sh", "-c", "echo $WHO").run()[0] == b"main\n"
    assert streams.exec("true", container="sidecar").run()[2] == 0
    assert streams.exec("true", container="init").wait_closed().error is StreamError.NOT_FOUND
    bench.peer.send(frames.Stop(0))
    assert process.wait(60)


def test_when_podinit_is_killed_its_programs_are_lost(bench: Bench) -> None:
    process = bench.start(bench.attempt("sleep", "1000"))
    bench.peer.wait_running()
    stream = bench.peer.streams.exec("sh", "-c", "echo here; sleep 4325")
    stream.wait_said(b"here")
    wait_until(lambda: bool(executing("sleep 4325")))
    (sleeping,) = executing("sleep 4325")
    kill_podinit(sleeping)
    closed = stream.wait_closed()
    assert (closed.error, closed.message) == (
        StreamError.LOST,
        "the pod's init process was killed",
    )
    assert process.wait(60)


def kill_podinit(pid: int) -> None:
    """The parent of what entered a container, of which this is a child."""
    for _ in range(2):
        pid = int(stat_of(pid)[1])
    os.kill(pid, signal.SIGKILL)


def state(pid: int) -> str:
    return stat_of(pid)[0]


def stat_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_a_hundred_at_once(streams: PeerStreams) -> None:
    all_of_them = [streams.exec("sh", "-c", f"echo {n}; exit {n}") for n in range(100)]
    for number, stream in enumerate(all_of_them):
        assert stream.run() == (f"{number}\n".encode(), b"", number)
