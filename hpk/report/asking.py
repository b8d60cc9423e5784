"""Collects the facts for `hpk why`; what cannot be had is a fact of its own, never an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

from hpk.journal import Attempt, PodJournal, read_pod
from hpk.model.errors import HpkError, PermanentError
from hpk.model.ids import PodUid
from hpk.report.cluster import Cluster, Json, find_journal
from hpk.report.why import Facts
from hpk.slurm.cli import CliBackend
from hpk.slurm.submitting import printed_id, printed_words
from hpk.slurm.usage import JobUsage
from hpk.statefs import HpkPaths


async def collect(paths: HpkPaths, backend: CliBackend, namespace: str, name: str) -> Facts:
    """All that is known of a Pod now."""
    pod, events, api_problem = await asyncio.to_thread(_ask_api, paths, namespace, name)
    journal = await asyncio.to_thread(_journal, paths, pod, namespace, name)
    attempt = journal.current if journal is not None else None
    job, slurm_problem = await _ask_slurm(backend, paths, attempt)
    last = journal.attempts[-1] if journal is not None and journal.attempts else None
    return Facts(
        name=name,
        namespace=namespace,
        pod=pod,
        events=events,
        api_problem=api_problem,
        slurm_problem=slurm_problem,
        attempt=attempt,
        refusal=_refusal(paths, last) if attempt is None else "",
        job=job,
        log="" if attempt is None else paths.attempt(attempt.pod.uid, attempt.nonce).job_output,
    )


def _ask_api(paths: HpkPaths, namespace: str, name: str) -> tuple[Json | None, list[Json], str]:
    try:
        cluster = Cluster(paths)
        pod = cluster.pod(namespace, name)
        return pod, cluster.events(pod) if pod is not None else [], ""
    except HpkError as error:
        return None, [], error.message


def _journal(paths: HpkPaths, pod: Json | None, namespace: str, name: str) -> PodJournal | None:
    if pod is not None:
        return read_pod(paths, PodUid(pod["metadata"]["uid"]))
    try:
        return find_journal(paths, namespace, name)
    except PermanentError:
        return None


async def _ask_slurm(
    backend: CliBackend, paths: HpkPaths, attempt: Attempt | None
) -> tuple[JobUsage | None, str]:
    if attempt is None:
        return None, ""
    job_id = attempt.job_id
    if job_id is None:
        # The kubelet may not have written down yet what sbatch has said.
        job_id = printed_id(_directory(paths, attempt))
    if job_id is None:
        return None, ""
    try:
        return (await backend.usage({job_id})).get(job_id), ""
    except HpkError as error:
        return None, error.message


def _refusal(paths: HpkPaths, attempt: Attempt | None) -> str:
    if attempt is None:
        return ""
    return printed_words(_directory(paths, attempt))


def _directory(paths: HpkPaths, attempt: Attempt) -> Path:
    return Path(paths.attempt(attempt.pod.uid, attempt.nonce).root)
