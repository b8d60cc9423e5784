"""A program's terminal, in a container entered as podinit enters one: real namespaces, no image."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor_bench import userns_works

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
ROOT = Path(__file__).parents[2]
OWN = "mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts"
NONE = "mount -t tmpfs none /dev/pts && mount --bind /dev/null /dev/ptmx"
PIPED = "mount -t tmpfs none /dev/pts && mkfifo /dev/pts/ptmx && mount --bind /dev/null /dev/ptmx"

ENTER = """
import fcntl, json, os, signal, socket, struct, subprocess, sys, termios
from hpk.model.frames import TerminalSize
from hpk.supervisor.base import linux
from hpk.supervisor.process import terminal
from hpk.supervisor.process.enter import Namespaces
from hpk.supervisor.process.pod_messages import Run
from hpk.supervisor.process.programs import start_program
uid, hold, *scripts = sys.argv[1:]
linux.become_subreaper()
pause = subprocess.Popen(
    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hold + "; echo ok; read -r _"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
assert pause.stdout.readline() == b"ok\\n"
enter = Namespaces(pause.pid, int(uid), int(uid))
answers = []
for number, script in enumerate(scripts):
    ours, theirs = socket.socketpair()
    run = Run(number, 1, ("sh", "-c", script), (("PATH", os.environ["PATH"]),), "/",
        emulates_root=uid == "0", terminal=TerminalSize(101, 37))
    pid, errors = start_program(run, enter, (theirs.fileno(),))
    if enter.beginning is not None:
        while not enter.beginning.hear():
            pass
        pid = enter.settle()
    theirs.close()
    with os.fdopen(errors) as told:
        assert told.read() == ""
    master = terminal.receive_descriptor(ours)
    said = b""
    while True:
        try:
            said += os.read(master, 4096)
        except OSError:
            break
        if said.endswith(b"resize me\\r\\n"):
            terminal.set_size(master, TerminalSize(7, 5))
        if said.endswith(b"interrupt me\\r\\n"):
            os.write(master, b"\\x03")
        if said.endswith(b"stay\\r\\n"):
            break
        if said.endswith(b"hang up\\r\\n"):
            os.close(master)
            break
    if said.endswith(b"stay\\r\\n"):
        answers.append([said.decode(), None])
        continue
    answers.append([said.decode(), os.waitpid(pid, 0)[1]])
enter.kill_programs()
enter.close()
pause.stdin.close()
pause.wait()
print(json.dumps(answers))
"""
TELL = """
tty; stty size; : > /dev/tty && echo has one
ps -o pid= -o sid= -o tpgid= -p $$ | awk '{print ($1 == $2), ($1 == $3)}'
trap 'stty size; exit 3' WINCH
echo resize me
while :; do sleep 0.05; done
"""
STAY = "echo stay; exec sleep 1000"


def run(uid: int, hold: str, *scripts: str) -> list[tuple[str, int | None]]:
    """What each said on its terminal, and how it ended."""
    done = subprocess.run(
        ["unshare", "-Urpf", "--mount-proc", sys.executable, "-c", ENTER, str(uid), hold, *scripts],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    return [(said.replace("\r\n", "\n"), status) for said, status in json.loads(done.stdout)]


@pytest.mark.parametrize("uid", [0, 1234])
def test_a_terminal_is_the_containers_own(uid: int) -> None:
    first, later = run(uid, OWN, STAY, TELL)
    assert first == ("stay\n", None)
    assert later == ("/dev/pts/1\n37 101\nhas one\n1 1\nresize me\n5 7\n", 3 << 8)


@pytest.mark.parametrize("hold", [NONE, PIPED], ids=["none", "something-else"])
def test_without_one_of_its_own_it_is_the_nodes(hold: str) -> None:
    """It has no name in there."""
    (found,) = run(0, hold, TELL)
    assert found == ("not a tty\n37 101\nhas one\n1 1\nresize me\n5 7\n", 3 << 8)


def test_the_terminals_keys_and_its_end_are_signals() -> None:
    _, interrupted, hung_up = run(
        0,
        OWN,
        STAY,
        "trap 'echo got it; exit 4' INT; echo interrupt me; while :; do sleep 0.05; done",
        "trap 'exit 5' HUP; echo hang up; while :; do sleep 0.05; done",
    )
    assert interrupted[0] == "interrupt me\n^Cgot it\n"
    assert interrupted[1] == 4 << 8
    assert hung_up == ("hang up\n", 5 << 8)
