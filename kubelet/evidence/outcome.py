"""How a pod ended: the supervisor's word first, Slurm's where there is none. Pure.

Slurm's word never overrules a supervisor that speaks now, and a pod whose containers have all ended
with 0 is Succeeded whatever became of its job, unless Slurm cut it short on the way.

Reasons of Slurm's own begin with ``Slurm``; the others are upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpk.model.job import JobObservation, JobState
from hpk.model.record import ContainerPhase, PodPhase, StopCause, SupervisorRecord
from kubelet.evidence.observations import Observation

LOST_AFTER_S = 120.0
"""How long both squeue and sacct must not know a job before it counts as lost."""

RECORD_DELAY_S = 90.0
"""How long a supervisor's last record may take to show on a shared file system after its job: NFS
looks a directory up again after a minute at most (``acdirmax``, nfs(5)); its server may be late."""

_SLURM_ENDINGS = {
    JobState.BOOT_FAIL: ("SlurmBootFail", "a node of it failed to boot"),
    JobState.CANCELLED: ("SlurmCancelled", "it was cancelled"),
    JobState.COMPLETED: ("SlurmJobLost", "it ended without a word of its supervisor"),
    JobState.DEADLINE: ("SlurmDeadline", "its deadline (--deadline) passed"),
    JobState.FAILED: ("SlurmFailed", "its batch script failed"),
    JobState.NODE_FAIL: ("SlurmNodeFail", "a node of it failed"),
    JobState.OUT_OF_MEMORY: ("OOMKilled", "it used more memory than its limit"),
    JobState.PREEMPTED: ("SlurmPreempted", "it was preempted by another job"),
    JobState.REVOKED: ("SlurmRevoked", "a sibling job took its place"),
    JobState.TIMEOUT: ("SlurmTimeout", "it reached its time limit (--time)"),
}
_CUT_SHORT = frozenset(
    {
        JobState.CANCELLED,
        JobState.DEADLINE,
        JobState.OUT_OF_MEMORY,
        JobState.PREEMPTED,
        JobState.TIMEOUT,
    }
)
"""What Slurm says of a job that it, or somebody through it, ended before its time."""
_BROKE_DOWN = frozenset({JobState.BOOT_FAIL, JobState.FAILED, JobState.NODE_FAIL})
"""What Slurm says of a job that nobody meant to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a pod.

    :param reason: for ``status.reason``, "" where the containers speak for themselves.
    :param cancel: the job is still in Slurm and must be cancelled.
    :param may_not_have_begun: nothing was heard of a supervisor, and nobody meant the job to end.
        Whether it began its claim says; where that is free the pod has not run.
    """

    succeeded: bool
    reason: str = ""
    message: str = ""
    cancel: bool = False
    may_not_have_begun: bool = False


def pod_outcome(seen: Observation, *, now_s: float, may_be_free: bool = False) -> Outcome | None:
    """How the pod ended, None while it has not (or it is not yet known how).

    :param now_s: monotonic seconds.
    :param may_be_free: nobody has asked yet whether the attempt was claimed. That is known at once,
        and where it was not no record is on its way.
    """
    record, job = seen.record, seen.job
    requeued = seen.was_requeued(now_s)
    if record is not None and record.phase is PodPhase.FINISHED:
        found = _outcome_of_record(record, seen, now_s)
        return replace(found, cancel=requeued) if found is not None else None
    ended = job is not None and job.state.is_terminal
    if seen.is_connected or not (ended or requeued or is_lost(seen, now_s=now_s)):
        return None
    silent = record is None and job is not None and job.state in _BROKE_DOWN
    if _may_still_show(seen, now_s) and not (silent and may_be_free):
        return None
    if _all_ended_well(record):
        return Outcome(succeeded=True, cancel=requeued)
    if job is not None and ended:
        return replace(_outcome_of_job(job), may_not_have_begun=silent)
    if job is not None and requeued:
        return _requeued(job)
    return replace(_lost(), may_not_have_begun=record is None)


def _may_still_show(seen: Observation, now_s: float) -> bool:
    """Whether the batch script ended by itself, so that its last record must be on its way."""
    job = seen.job
    ended = job is not None and job.state in (JobState.COMPLETED, JobState.FAILED)
    ended = ended and job is not None and not job.signal
    return ended and seen.over_since_s is not None and now_s - seen.over_since_s < RECORD_DELAY_S


def is_lost(seen: Observation, *, now_s: float) -> bool:
    """Whether neither squeue nor sacct has known the job for so long that it will not come back,
    and nothing was heard of its supervisor either."""
    if seen.absent_since_s is None or seen.is_heard(now_s):
        return False
    return now_s - seen.absent_since_s > LOST_AFTER_S


def _outcome_of_record(record: SupervisorRecord, seen: Observation, now_s: float) -> Outcome | None:
    cause = record.stop_cause
    if cause is StopCause.SIGNALLED:
        return _outcome_of_signalled(record, seen, now_s)
    if cause is StopCause.DEADLINE:
        message = "Pod was active on the node longer than the specified deadline"
        return Outcome(succeeded=False, reason="DeadlineExceeded", message=message)
    if cause is StopCause.ORPHANED:
        message = record.message or "no control plane was heard of for too long"
        return Outcome(succeeded=False, reason="ControlPlaneLost", message=message)
    if cause is StopCause.EVICTED:
        return Outcome(succeeded=False, reason="Evicted", message=record.message)
    if cause is StopCause.SETUP_FAILED:
        return Outcome(succeeded=False, reason="StartError", message=record.message)
    return Outcome(succeeded=_all_ended_well(record))


def _outcome_of_signalled(
    record: SupervisorRecord, seen: Observation, now_s: float
) -> Outcome | None:
    """Only Slurm knows who sent the signal: wait for its word.

    A container that ends with 0 because it was told to has not done its work; where Slurm does not
    say that it told it to, its own word counts.
    """
    job = seen.job
    if job is not None and job.state in _CUT_SHORT:
        return _outcome_of_job(job)
    if job is not None and seen.was_requeued(now_s):
        return _requeued(job)
    ended = job is not None and job.state.is_terminal
    if not (ended or is_lost(seen, now_s=now_s)):
        return None
    if _all_ended_well(record):
        return Outcome(succeeded=True)
    return _outcome_of_job(job) if job is not None and ended else _lost()


def _all_ended_well(record: SupervisorRecord | None) -> bool:
    """Whether the record says that every container has ended with 0."""
    return (
        record is not None
        and bool(record.containers)
        and all(
            c.state.phase is ContainerPhase.TERMINATED and c.state.exit_code == 0
            for c in record.containers
        )
    )


def _outcome_of_job(job: JobObservation) -> Outcome:
    reason, what = _SLURM_ENDINGS[job.state]
    detail = f" ({job.reason})" if job.reason and job.reason != "None" else ""
    where = f" on {job.nodes}" if job.nodes else ""
    return Outcome(
        succeeded=False,
        reason=reason,
        message=f"Slurm job {job.job_id}{where} ended {job.state.value}{detail}: {what}",
    )


def _requeued(job: JobObservation) -> Outcome:
    return Outcome(
        succeeded=False,
        reason="SlurmRequeued",
        message=f"Slurm job {job.job_id} was requeued; a pod never runs twice, so it was cancelled",
        cancel=True,
    )


def _lost() -> Outcome:
    return Outcome(
        succeeded=False,
        reason="SlurmJobLost",
        message="neither squeue nor sacct knows the job any more and it left no record",
    )
