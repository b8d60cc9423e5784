"""`hpk down`: stop the control plane, wherever it runs. Slurm jobs are another matter: see jobs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable

from bootstrap import lock
from bootstrap.host import Identity
from bootstrap.lock import Holder
from bootstrap.logs import control_plane_log
from bootstrap.remains import end_remains
from hpk.durable import write_atomically
from hpk.model.errors import TransientError
from hpk.statefs import HpkPaths

_POLL_S = 0.1
_TIMEOUT_S = 60.0


async def stop(paths: HpkPaths, holder: Holder, waiting: Callable[[str], None]) -> None:
    """Ask the holder to stop and wait until it has.

    :raises TransientError: it has not in time.
    """
    request = {"generation": holder.generation, "host": socket.gethostname(), "pid": os.getpid()}
    local = holder.identity == Identity.here()
    if local:
        holder.process.send(signal.SIGTERM)
    try:
        await asyncio.to_thread(write_atomically, paths.stop_request, json.dumps(request) + "\n")
    except OSError:
        # A signal needs no room in the home, and a full one must not keep alive what fills it.
        if not local:
            raise
    began = time.monotonic()
    while time.monotonic() - began < _TIMEOUT_S:
        current = await asyncio.to_thread(lock.read_holder, paths)
        if current is None or current.released or not current.is_same_process(holder):
            return
        if local and not holder.process.is_alive():
            await clean_up(paths, current)
            return
        waiting(f"waiting for {holder.where}")
        await asyncio.sleep(_POLL_S)
    raise TransientError(
        f"the control plane on {holder.where} has not stopped after {_TIMEOUT_S:g} s",
        remedy=f"read {control_plane_log(paths)}"
        + (f"; scancel {holder.job_id}" if holder.job_id is not None else ""),
    )


async def clean_up(paths: HpkPaths, dead: Holder) -> tuple[str, ...]:
    """Put in order what a holder that died left behind.

    :returns: names of components that had to be ended.
    """
    ended = await asyncio.to_thread(end_remains, paths)
    paths.endpoint.unlink(missing_ok=True)
    paths.stop_request.unlink(missing_ok=True)
    await asyncio.to_thread(lock.release, paths, dead)
    return ended
