"""The namespaces of a container's programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor_bench import userns_works

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
SHORT = """
import os, signal, time
from hpk.supervisor import linux
from hpk.supervisor.namespaces import fork_process_1
linux.become_subreaper()
signal.signal(signal.SIGCHLD, lambda *_: None)  # as podinit
parent = os.getpid()

def join():
    if os.fork() == 0:
        os.kill(parent, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(parent, signal.SIGCONT)
        os._exit(0)
    time.sleep(0.2)

pid, namespace = fork_process_1(join)
if pid == 0:
    os._exit(7)
os.close(namespace)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_program_may_end_before_its_namespace_is_looked_at() -> None:
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", SHORT],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == "7\n"
