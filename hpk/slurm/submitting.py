"""sbatch, so that the job's id is known whoever dies meanwhile.

sbatch writes its answer into a file of the attempt's directory and holds a lock on it for as long
as it lives, through the descriptor that is its standard output. Whoever comes later waits for the
lock, reads the answer, and where there is none looks for the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from hpk import subproc
from hpk.flock import open_lock, try_lock
from hpk.model.errors import TransientError
from hpk.model.ids import SlurmJobId
from hpk.slurm.refusals import UNKNOWN, refusal, slurm_words

_TIMEOUT_S = 180
"""sbatch itself waits and tries again for up to two minutes when slurmctld is busy."""
_LOCK_POLL_S = 0.1
_ANSWER = "sbatch.out"
_WORDS = "sbatch.err"
_WORDS_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


async def run_sbatch(script: Path, directory: Path, environment: Mapping[str, str]) -> SlurmJobId:
    """Submit a script.

    :param directory: where sbatch's answer and words go; one submission at a time in each.
    :raises PermanentError: Slurm refuses for good.
    :raises TransientError: Slurm refuses now; of reason ``Unknown``: it may have taken the job.
    """
    fds = await _open(directory)
    try:
        done = await subproc.run(
            ["sbatch", "--parsable", str(script)],
            environment=environment,
            timeout_s=_TIMEOUT_S,
            cwd=Path("/"),
            output_fds=fds,
            outlives_us=True,
        )
    except TransientError as error:
        raise TransientError(error.message, reason=UNKNOWN) from error
    finally:
        for fd in fds:
            os.close(fd)
    job_id, said = await asyncio.to_thread(_answer, directory)
    if job_id is not None:
        return job_id
    if done.exit_code == 0:
        raise TransientError(
            f"sbatch ended well but gave no job id: {slurm_words(said)}", reason=UNKNOWN
        )
    raise refusal("sbatch", said, exit_code=done.exit_code)


async def answer_of(directory: Path, *, wait: bool) -> SlurmJobId | None:
    """The id sbatch printed there, whoever started it.

    :param wait: until an sbatch that still runs has ended.
    """
    if wait:
        with contextlib.suppress(FileNotFoundError):
            os.close(await _lock(directory))
    return await asyncio.to_thread(printed_id, directory)


def printed_id(directory: Path) -> SlurmJobId | None:
    """The id sbatch printed there, None if it has not (yet). Blocks."""
    return parse_submit_output(_read(directory / _ANSWER))


def printed_words(directory: Path) -> str:
    """What sbatch said there when it failed. Blocks."""
    return slurm_words(_read(directory / _WORDS))


def parse_submit_output(text: str) -> SlurmJobId | None:
    """The id in the output of ``sbatch --parsable`` (``ID[;CLUSTER]``), None if not whole."""
    if not text.endswith("\n"):
        return None
    for line in text.splitlines():
        head = line.split(";", 1)[0].strip()
        if head.isascii() and head.isdigit():
            return SlurmJobId(int(head))
    return None


async def _lock(directory: Path) -> int:
    """The file of sbatch's answer, once nobody else holds it."""
    fd, is_ours = await asyncio.to_thread(_try_lock, directory / _ANSWER)
    try:
        while not is_ours:
            await asyncio.sleep(_LOCK_POLL_S)
            is_ours = await asyncio.to_thread(try_lock, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _open(directory: Path) -> tuple[int, int]:
    """Empty files for sbatch's answer, which is locked, and for its words."""
    fds = await asyncio.to_thread(_try_open, directory)
    while fds is None:
        await asyncio.sleep(_LOCK_POLL_S)
        fds = await asyncio.to_thread(_try_open, directory)
    return fds


def _try_open(directory: Path) -> tuple[int, int] | None:
    answer, is_ours = _try_lock(directory / _ANSWER)
    try:
        if is_ours:
            os.ftruncate(answer, 0)
            return answer, os.open(directory / _WORDS, _WORDS_FLAGS, 0o600)
    except BaseException:
        os.close(answer)
        raise
    os.close(answer)
    return None


def _try_lock(path: Path) -> tuple[int, bool]:
    fd = open_lock(path)
    try:
        return fd, try_lock(fd)
    except BaseException:
        os.close(fd)
        raise


def _answer(directory: Path) -> tuple[SlurmJobId | None, str]:
    job_id = printed_id(directory)
    return job_id, "" if job_id is not None else _read(directory / _WORDS)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
