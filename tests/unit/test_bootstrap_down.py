"""`hpk down` where it is needed most: the home is full."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bootstrap.down import stop
from bootstrap.host import Identity
from bootstrap.lock import Holder
from bootstrap.processes import ProcessId
from hpk.statefs import HpkPaths


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
