"""exec beside the ranks of an MPI run, by the supervisor as a process: real ranks and a real
container, Slurm's two programs played by others on PATH."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpk.model.frames import StreamError
from hpk.model.plan import MpiPlan
from tests.supervisor_bench import PYTHON, Bench, userns_works, wait_until
from tests.supervisor_peer import env, log_texts

pytestmark = pytest.mark.skipif(
    not (userns_works() and os.access("/dev/fuse", os.R_OK | os.W_OK)),
    reason="this machine allows no user namespaces, or this user no /dev/fuse",
)
JOB = os.getpid()
"""Directories on tmpfs are of its name."""
SRUN = f"""#!{sys.executable}
import ctypes, os, subprocess, sys
def die_with_us(): ctypes.CDLL(None).prctl(1, 9)
argv, bundle = sys.argv[sys.argv.index("--") + 1 :], sys.stdin.buffer.read()
tasks = []
for number in range(2):
    own = {{"SLURM_PROCID": str(number), "SLURM_STEP_ID": "0", "SLURM_LOCALID": str(number)}}
    task = subprocess.Popen(argv, stdin=subprocess.PIPE, env={{**os.environ, **own}},
        preexec_fn=die_with_us)
    task.stdin.write(bundle)
    task.stdin.close()
    tasks.append(task)
with open(os.environ["TASKS"] + ".new", "w") as file:
    file.write(" ".join(str(task.pid) for task in tasks))
os.rename(os.environ["TASKS"] + ".new", os.environ["TASKS"])
sys.exit(max(task.wait() for task in tasks))
"""
SCANCEL = f"""#!{sys.executable}
import os, sys
assert sys.argv[2] == "{JOB}.0"
number = int(sys.argv[1].removeprefix("--signal="))
for pid in open(os.path.join(os.path.dirname(sys.argv[0]), "tasks")).read().split():
    os.kill(int(pid), number)
"""
RANK = "trap 'echo got $SLURM_PROCID; exit 7' TERM; echo ready; while :; do sleep 0.1; done"


def test_what_is_sent_to_process_1_reaches_every_rank(bench: Bench) -> None:
    layout = bench.attempt("sh", "-c", RANK, mpi=MpiPlan("pmix"), env=env(WHO="me"))
    programs = bench.directory / "bin"
    for name, text in (("srun", SRUN), ("scancel", SCANCEL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with Path(layout.job_output).open("ab") as log:
        process = subprocess.Popen(
            [PYTHON, "-I", "-S", str(bench.zipapp), "run", "--attempt-dir", layout.root],
            env={
                "SLURM_JOB_ID": str(JOB),
                "PATH": f"{programs}:/usr/bin:/bin",
                "MARKER": bench.marker,
                "TASKS": str(programs / "tasks"),
            },
            stderr=log,
        )
    bench.processes.append(process)
    bench.peer.wait_running()
    log_file = Path(layout.root, "logs/main/0.log")
    wait_until(lambda: log_file.exists() and log_file.read_bytes().count(b"ready") == 2)
    streams = bench.peer.streams
    out, _, code = streams.exec("sh", "-c", 'echo "$WHO $SLURM_PROCID"; exit 3').run()
    assert (out, code) == (b"me \n", 3)
    out, _, code = streams.exec("sh", "-c", "stty size; kill -0 -1; exit 4", tty=True).run()
    assert out.startswith(b"24 80\r\n")
    assert b"ermitted" in out
    assert code == 4
    refused = streams.exec("true", node="n2").wait_closed()
    assert refused.error is StreamError.NOT_STARTED
    stays = streams.exec("sh", "-c", "echo here; exec sleep 1000")
    stays.wait_said(b"here")
    assert streams.exec("sh", "-c", "kill -TERM 1").run()[2] == 0
    assert process.wait(60) == 7
    assert stays.run()[2] == 137
    said = log_texts(log_file.read_bytes()).decode()
    assert sorted(re.findall(r"got \d", said)) == ["got 0", "got 1"]
