"""Argo's prefix: before rank 0 alone, and what a signal to it reaches."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpk.supervisor.ranks.argo_emissary import signal_tree, without_emissary

PREFIX = ("/var/run/argo/argoexec", "emissary", "--loglevel", "info", "--log-format", "text")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((*PREFIX, "--", "lmp", "-in", "a b"), ("lmp", "-in", "a b")),
        ((*PREFIX, "--", "sh", "-c", 'exec "$@"', "--", "x"), ("sh", "-c", 'exec "$@"', "--", "x")),
        ((*PREFIX, "--gloglevel", "0", "--", "--"), ("--",)),
        (("lmp", "--", "x"), ("lmp", "--", "x")),
        (
            ("/var/run/argo/argoexec", "wait", "--", "x"),
            ("/var/run/argo/argoexec", "wait", "--", "x"),
        ),
        (PREFIX, PREFIX),
        ((*PREFIX, "--"), (*PREFIX, "--")),
        ((), ()),
    ],
)
def test_the_command_behind_the_emissary(argv: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert without_emissary(argv) == expected


KILL = """
import os
from hpk.supervisor.ranks import argo_emissary
from hpk.supervisor.base import linux
linux.forbid_new_privileges()
argo_emissary.refuse_to_signal_everybody()
os.kill(os.getpid(), 0)
os.kill(0, 0)
try:
    os.kill(-1, 0)  # signal 0 asks only whether one may
except OSError as error:
    print(error.errno)
"""


def test_nobody_behind_the_filter_signals_everybody() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILL],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (f"{errno.EPERM}\n", "")


TREE = """
import os, signal, time
def leaf(*_):
    os.write(1, b"x")
    os._exit(0)
signal.signal(signal.SIGTERM, leaf)
if os.fork():
    os.fork()
os.write(2, b"y")
time.sleep(60)
"""


def test_a_signal_to_the_tree_reaches_every_process_of_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TREE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for _ in range(3):
                assert os.read(process.stderr.fileno(), 1) == b"y", "one has ended"
            signal_tree(process.pid, signal.SIGTERM)
            assert process.stdout.read() == b"xxx"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


RANK = """
import os, signal
from types import SimpleNamespace
from hpk.supervisor.ranks import rank
sent = []
rank._begins_with_emissary = lambda *_: False
rank._become_program = lambda *_: os._exit(7)
rank._forward = lambda pid, number: sent.append(number)
rank._publish_message = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
code = rank._run_below(SimpleNamespace(is_first=True), None, SimpleNamespace(lock_fds=()), 0, 0)
print(code, sent)
"""


def test_a_rank_that_has_ended_is_sent_no_signal() -> None:
    """Its pid may be anybody's; and the task must go on to its own end."""
    done = subprocess.run(
        [sys.executable, "-c", RANK],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("7 []\n", "")
