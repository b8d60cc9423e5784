"""Pods beside their Slurm jobs. `rows` is pure; `read_rows` collects with one squeue for all."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpk.journal import Attempt, known_pods, read_pod
from hpk.model.ids import PodUid, SlurmJobId
from hpk.report.cluster import Cluster, Json, PrintedPod
from hpk.slurm.cli import CliBackend
from hpk.slurm.usage import JobUsage
from hpk.statefs import HpkPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class PsRow:
    """One Pod, or a job whose Pod is gone. Times are Unix seconds, spans seconds.

    :param status: kubectl's STATUS column; ``NoPod`` where only the job is known.
    :param reason: Slurm's for a queued job, else what Slurm or the kubelet said of the end.
    """

    namespace: str
    pod: str
    status: str
    job_id: int | None = None
    state: str = ""
    reason: str = ""
    start_time_s: float | None = None
    nodes: str = ""
    elapsed_s: int | None = None
    time_left_s: int | None = None
    cpu_hours: float | None = None
    gpu_hours: float | None = None


def rows(
    pods: Sequence[PrintedPod],
    attempts: Mapping[PodUid, Attempt],
    usage: Mapping[SlurmJobId, JobUsage],
    *,
    namespace: str | None,
) -> tuple[PsRow, ...]:
    """One row for each Pod and for each open job without one, by namespace and name."""
    found = []
    listed = set()
    for item in pods:
        meta = item.pod["metadata"]
        uid = PodUid(meta["uid"])
        listed.add(uid)
        attempt = attempts.get(uid)
        reason = _reason(item.pod)
        found.append(_row(meta["namespace"], meta["name"], item.status, attempt, usage, reason))
    for uid, attempt in attempts.items():
        is_ours = namespace is None or attempt.pod.namespace == namespace
        if uid not in listed and attempt.is_open and is_ours:
            found.append(_row(attempt.pod.namespace, attempt.pod.name, "NoPod", attempt, usage, ""))
    return tuple(sorted(found, key=lambda row: (row.namespace, row.pod)))


def _row(
    namespace: str,
    name: str,
    status: str,
    attempt: Attempt | None,
    usage: Mapping[SlurmJobId, JobUsage],
    reason: str,
) -> PsRow:
    job_id = attempt.job_id if attempt is not None else None
    job = usage.get(job_id) if job_id is not None else None
    if job is None:
        state = "" if job_id is None else "UNKNOWN"
        return PsRow(
            namespace=namespace, pod=name, status=status, job_id=job_id, state=state, reason=reason
        )
    return PsRow(
        namespace=namespace,
        pod=name,
        status=status,
        job_id=job_id,
        state=job.state,
        reason=job.reason or reason,
        start_time_s=job.start_time_s,
        nodes=job.nodes,
        elapsed_s=job.elapsed_s,
        time_left_s=job.time_left_s if job.state == "RUNNING" else None,
        cpu_hours=job.cpu_hours,
        gpu_hours=job.gpu_hours,
    )


def _reason(pod: Json) -> str:
    """What the kubelet says where Slurm says nothing."""
    status = pod.get("status") or {}
    return str(status.get("reason") or "")


async def read_rows(
    paths: HpkPaths, backend: CliBackend, namespace: str | None
) -> tuple[PsRow, ...]:
    """The rows as of now.

    :raises TransientError: the control plane or Slurm does not answer.
    """
    pods = await asyncio.to_thread(lambda: Cluster(paths).pods(namespace))
    return await rows_of(pods, paths, backend, namespace)


async def rows_of(
    pods: Sequence[PrintedPod], paths: HpkPaths, backend: CliBackend, namespace: str | None
) -> tuple[PsRow, ...]:
    """The rows of these Pods, with what journals and Slurm say now.

    :raises TransientError: Slurm does not answer.
    """
    attempts = await asyncio.to_thread(_attempts, paths)
    listed = {PodUid(item.pod["metadata"]["uid"]) for item in pods}
    ids = {
        attempt.job_id
        for uid, attempt in attempts.items()
        if attempt.job_id is not None and (uid in listed or attempt.is_open)
    }
    usage = await backend.usage(ids)
    return rows(pods, attempts, usage, namespace=namespace)


def _attempts(paths: HpkPaths) -> dict[PodUid, Attempt]:
    found = {}
    for uid in known_pods(paths):
        journal = read_pod(paths, uid)
        if journal is not None and journal.current is not None:
            found[uid] = journal.current
    return found
