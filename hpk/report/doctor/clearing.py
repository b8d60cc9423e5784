"""Takes a run's job and files away: at its end, and of earlier runs that were killed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from pathlib import Path

from hpk.flock import try_lock
from hpk.model.errors import HpkError
from hpk.model.ids import SlurmJobId
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

NAME = "hpk-doctor"
"""What the job is called, before its nonce."""
LEAVE_S = 20
"""How long a cancelled job may take to go before its files do."""
_LEAVE_POLL_S = 0.3
_REMOVE_TRIES = 100
_REMOVE_POLL_S = 0.05
_NONCE = re.compile(r"[0-9a-f]{16}")


async def take_away(
    backend: CliBackend,
    directory: Path,
    job_id: SlurmJobId | None,
    began_s: float,
    *,
    grace_s: float = 0,
) -> None:
    """Cancel the job, wait until it has gone, then remove the directory.

    :param grace_s: how long a job that has nothing left to do may take to end by itself.
    :raises HpkError: Slurm does not answer; the directory stays, for the next run to find.
    """
    if job_id is None and (directory / "sbatch.out").exists():
        # sbatch may have been cut off between its submission and its answer.
        name = f"{NAME}-{directory.name}"
        job_id = await backend.recover(name, since_s=began_s, directory=directory)
    began = time.monotonic()
    if job_id is not None:
        while time.monotonic() < began + grace_s + LEAVE_S:
            job = (await backend.jobs([job_id])).get(job_id)
            if job is not None and job.state.is_terminal:
                break
            if time.monotonic() >= began + grace_s or job is None:
                for error in (await backend.cancel([job_id])).values():
                    raise error
            if job is None:
                break
            await asyncio.sleep(_LEAVE_POLL_S)
    for _ in range(_REMOVE_TRIES):
        if _remove(directory):
            break
        await asyncio.sleep(_REMOVE_POLL_S)


def _remove(directory: Path) -> bool:
    """Whether it is gone; what still runs may put another file there meanwhile."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


async def sweep(paths: HpkPaths, backend: CliBackend) -> None:
    """Clear up after runs that were killed: those whose lock is free."""
    for directory in sorted((paths.home / "doctor").iterdir()):
        if not _NONCE.fullmatch(directory.name) or directory.is_symlink():
            continue
        try:
            fd = os.open(directory / "owner", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if try_lock(fd):
                began_s = os.fstat(fd).st_mtime
                await take_away(backend, directory, None, began_s)
        except HpkError:
            continue
        finally:
            os.close(fd)
