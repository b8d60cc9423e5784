"""The Slurm jobs of this home's pods, as the journals and Slurm tell of them.

Only jobs that a journal of this home names are ever listed or cancelled: other jobs of the user,
other homes' included, are not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from hpk import journal
from hpk.journal import Attempt
from hpk.model.errors import HpkError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A job that may be in Slurm.

    :param pod: ``namespace/name``.
    :param state: Slurm's word for it, ``UNKNOWN`` where Slurm does not know or does not answer.
    """

    pod: str
    job_id: SlurmJobId
    state: str
    reason: str
    is_queued: bool


def open_attempts(paths: HpkPaths) -> tuple[Attempt, ...]:
    """Every attempt of this home of which a job may be in Slurm. Blocks.

    A journal that cannot be read is logged and left out: it must not hide the others.
    """
    found: list[Attempt] = []
    for uid in journal.known_pods(paths):
        try:
            pod = journal.read_pod(paths, uid)
        except OSError as error:
            log.warning("journal of pod %s: %s", uid, error)
            continue
        found += [attempt for attempt in pod.attempts if attempt.is_open] if pod else []
    return tuple(found)


async def open_jobs(
    paths: HpkPaths, backend: SlurmBackend, *, settle: bool = False
) -> tuple[OpenJob, ...]:
    """The jobs of the open attempts, ended ones left out.

    :param settle: first wait for submissions that are still under way.
    """
    attempts = await asyncio.to_thread(open_attempts, paths)
    known: dict[SlurmJobId, Attempt] = {}
    seen: dict[SlurmJobId, JobObservation] = {}
    for attempt in attempts:
        job_id = attempt.job_id or await _recovered(paths, backend, attempt, settle=settle)
        if job_id is not None:
            known[job_id] = attempt
    if known:
        # Those it says nothing of are listed as UNKNOWN; who cancels them learns of the silence.
        with contextlib.suppress(HpkError):
            seen |= await backend.jobs(list(known))
    return tuple(
        _open_job(attempt, job_id, seen.get(job_id))
        for job_id, attempt in known.items()
        if job_id not in seen or _is_live(attempt, seen[job_id])
    )


def _is_live(attempt: Attempt, job: JobObservation) -> bool:
    return attempt.owns(job) and not job.state.is_terminal


async def _recovered(
    paths: HpkPaths, backend: SlurmBackend, attempt: Attempt, *, settle: bool
) -> SlurmJobId | None:
    """The id that sbatch printed, or Slurm tells, although nobody lived to journal it."""
    try:
        return await backend.recover(
            attempt.job_name,
            since_s=attempt.intent_at_s,
            directory=Path(paths.attempt(attempt.pod.uid, attempt.nonce).root),
            settle=settle,
        )
    except HpkError:
        return None


def _open_job(attempt: Attempt, job_id: SlurmJobId, seen: JobObservation | None) -> OpenJob:
    return OpenJob(
        pod=str(attempt.pod),
        job_id=job_id,
        state=seen.state.value if seen is not None else "UNKNOWN",
        reason=seen.reason if seen is not None else "",
        is_queued=seen is not None and seen.state.is_queued,
    )


async def cancel_all(
    paths: HpkPaths, backend: SlurmBackend
) -> tuple[tuple[OpenJob, ...], tuple[str, ...]]:
    """Cancel the jobs of every open attempt, by id. The control plane must be down.

    :returns: the jobs that were cancelled, and what went wrong with others.
    """
    jobs = await open_jobs(paths, backend, settle=True)
    try:
        failed = await backend.cancel([job.job_id for job in jobs])
    except HpkError as error:
        failed = {job.job_id: error for job in jobs}
    errors = [
        f"job {job.job_id} ({job.pod}): {failed[job.job_id]}"
        for job in jobs
        if job.job_id in failed
    ]
    return tuple(job for job in jobs if job.job_id not in failed), tuple(errors)
