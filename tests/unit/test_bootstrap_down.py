"""`hpk down` where it is needed most: the home is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bootstrap.down import stop
from bootstrap.host import Identity
from bootstrap.lock import Holder
from bootstrap.processes import ProcessId
from hpk.statefs import HpkPaths

FULL = """
set -e
mount -t tmpfs -o size=64k,mode=700 home "$HPK_HOME"
exec "$1" -c "$2"
"""

DEAD = """
import asyncio, contextlib, subprocess, sys
from bootstrap import lock
from bootstrap.down import clean_up
from hpk.statefs import HpkPaths

paths = HpkPaths.from_environment()
taker = "import asyncio; from bootstrap import lock; from hpk.statefs import HpkPaths;"
taker += "asyncio.run(lock.acquire(HpkPaths.from_environment(), job_id=None))"
subprocess.run([sys.executable, "-c", taker], check=True)
with contextlib.suppress(OSError), open(paths.home / "filler", "wb", buffering=0) as file:
    while file.write(bytes(512)):
        pass
dead = lock.read_holder(paths)
assert not asyncio.run(lock.is_alive(paths, dead))
asyncio.run(clean_up(paths, dead))
after = lock.read_holder(paths)
assert after.released and after.generation == dead.generation, after
print("released")
"""


def test_one_that_died_in_a_full_home_is_cleared_up(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", sys.executable, DEAD],
        env={**os.environ, "HPK_HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "released\n", done.stderr


def silent(text: str) -> None:
    pass


async def test_a_control_plane_here_is_stopped_though_nothing_can_be_written(
    tmp_path: Path,
) -> None:
    paths = HpkPaths(home=tmp_path, cache=tmp_path / "cache")
    # Stands for whatever makes a write fail, for root too.
    paths.stop_request.mkdir()
    (paths.stop_request / "in the way").touch()
    with subprocess.Popen(["sleep", "infinity"]) as process:
        try:
            holder = Holder(
                generation=1,
                identity=Identity.here(),
                process=ProcessId.of(process.pid),
                job_id=None,
                started_at_s=time.time(),
            )
            elsewhere = replace(holder, identity=replace(Identity.here(), host="elsewhere"))
            with pytest.raises(OSError, match="stop-request"):
                await stop(paths, elsewhere, silent)
            assert process.poll() is None
            await stop(paths, holder, silent)
            assert process.wait() == -signal.SIGTERM
        finally:
            process.kill()
