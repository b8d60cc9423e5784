"""The namespaces of a container's programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor_bench import userns_works

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
UNTOLD = """
import contextlib, os
from hpk.supervisor.base import linux
from hpk.supervisor.process import namespaces
linux.become_subreaper()
open_file = os.open

def refuse(path, *rest):
    if path.endswith("/ns/pid"):
        raise OSError(24, "Too many open files")
    return open_file(path, *rest)

os.open = refuse
with contextlib.suppress(ChildProcessError):
    try:
        beginning = namespaces.fork_first(lambda: None, lambda: None, ("pid",), own_pids=True)
        while beginning is not None and not beginning.hear():
            pass
        if beginning is not None:
            beginning.finish()
        print("it runs")
    except OSError as error:
        print(error)
    while True:
        os.waitpid(-1, 0)
"""


def as_root(script: str) -> str:
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def test_process_1_does_not_run_where_nobody_knows_of_it() -> None:
    assert as_root(UNTOLD) == "[Errno 24] Too many open files\n"
