"""Programs beside the ranks of an MPI run, and what they send to process 1: real namespaces."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor_bench import userns_works

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
ROOT = Path(__file__).parents[2]

ENTER = """
import json, os, select, socket, subprocess, sys
from hpk.supervisor.base.event_loop import EventLoop
from hpk.supervisor.container.signals_to_ranks import SignalsToRanks
from hpk.supervisor.process.enter import BesideRanks
from hpk.supervisor.process.pod_messages import Run
from hpk.supervisor.process.programs import start_program
hold = "echo ok; read -r _"
pause = subprocess.Popen(
    ["unshare", "--user", "--map-current-user", "--mount", "sh", "-c", hold],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
assert pause.stdout.readline() == b"ok\\n"
loop, numbers = EventLoop(), []
signals = SignalsToRanks(loop, numbers.append)
theirs = signals.open()
out_read, out_write = os.pipe()
env = (("PATH", os.environ["PATH"]),)
run = Run(1, None, ("sh", "-c", sys.argv[1]), env, "/", beside=pause.pid)
enter = BesideRanks(theirs)
pid, errors = start_program(run, enter, (0, out_write, out_write, theirs))
os.close(out_write)
os.close(theirs)
with os.fdopen(errors) as told:
    assert told.read() == "", told
signals.started()
ended = os.pidfd_open(pid)
is_over = []
loop.watch(ended, lambda: is_over.append(True))
while not is_over:
    loop.turn(10)
loop.unwatch(ended)
_, status = os.waitpid(pid, 0)
while signals._listener >= 0:  # until nobody could call any more
    loop.turn(10)
with os.fdopen(out_read) as said:
    answer = said.read()
pause.stdin.close()
pause.wait()
print(json.dumps([answer, os.waitstatus_to_exitcode(status), numbers]))
"""


def run(script: str) -> tuple[str, int, list[int]]:
    done = subprocess.run(
        [sys.executable, "-c", ENTER, script],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    said, status, numbers = json.loads(done.stdout)
    return said, status, numbers


def test_signals_to_process_1_are_for_the_ranks() -> None:
    said, status, numbers = run(
        "kill -USR1 1 && echo done; kill -0 1 && /bin/kill -15 1 && kill -9 1; exit 3"
    )
    assert (said, status, numbers) == ("done\n", 3, [10, 15, 9])


def test_other_signals_are_the_programs_own_and_none_goes_to_everybody() -> None:
    script = (
        "trap 'echo caught' USR1; kill -USR1 $$; sleep 1000 & kill $! && echo one;"
        " kill -0 -1 2>/dev/null || echo refused; exec sh -c 'readlink /proc/self/ns/pid'"
    )
    said, status, numbers = run(script)
    assert said == f"caught\none\nrefused\n{Path('/proc/self/ns/pid').readlink()}\n"
    assert (status, numbers) == (0, [])
