"""What to do next for one pod. Pure: `compute_actions` decides, the pod worker acts.

Nothing here waits or remembers; the same view gives the same actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpk.journal import Attempt
from hpk.model.record import PodPhase
from kubelet.evidence.observations import Observation
from kubelet.evidence.outcome import Outcome, is_lost

STOP_MARGIN_S = 15.0
"""What a supervisor gets beyond the pod's grace period before its job is cancelled."""
STOP_FILE_S = 30.0
"""How long it may take besides to look for its stop file, where nobody can tell it."""
CANCEL_AGAIN_S = 10.0
"""How long a scancel may take to show before it is sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """An observed deletion.

    :param grace_period_s: as the API server says.
    :param observed_at_s: when we first acted on it, monotonic seconds.
    :param object_gone: the Pod object itself does not exist any more.
    """

    grace_period_s: int
    observed_at_s: float
    object_gone: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """Everything a decision rests on.

    :param has_object: the API server has the Pod (False: gone, or missing from a new list).
    :param is_over: its reported phase is terminal.
    :param attempt: the one that speaks for the Pod.
    :param cancelled_at_s: when its job was last cancelled, monotonic seconds.
    :param over_since_s: since when the phase has been terminal while nothing is known that ended
        the pod, monotonic seconds: somebody else has said so.
    :param grace_period_s: the Pod's own.
    :param may_begin_again: nothing is known that forbids to submit the Pod once more, if the
        attempt has not begun.
    """

    has_object: bool
    is_over: bool
    deletion: Deletion | None
    deletion_journalled: bool
    attempt: Attempt | None
    seen: Observation
    outcome: Outcome | None
    cancelled_at_s: float | None
    now_s: float
    over_since_s: float | None = None
    grace_period_s: int = 30
    may_begin_again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """What to do, in this order.

    :param journal_delete: write down that the deletion was observed.
    :param recover: find out what became of a submission nobody has the id of.
    :param launch: admit, plan and submit.
    :param revoke: take the claim of an attempt whose job broke down, if it is free: then the pod
        has not run, and is submitted again.
    :param stop: ask the supervisor to stop with this grace period, in seconds.
    :param cancel: scancel.
    :param mark_ended: nothing of the attempt is left in Slurm; written down after the report.
    :param finish_deletion: delete the Pod object.
    :param forget: remove the Pod's files; the worker is done.
    :param again_s: look again after so many seconds even if nothing happens.
    """

    journal_delete: bool = False
    recover: bool = False
    launch: bool = False
    revoke: bool = False
    stop: int | None = None
    cancel: bool = False
    mark_ended: bool = False
    finish_deletion: bool = False
    forget: bool = False
    again_s: float | None = None


def compute_actions(view: PodView) -> Actions:
    """The next actions for a pod."""
    attempt = view.attempt
    if attempt is not None and attempt.is_open and attempt.job_id is None:
        return Actions(journal_delete=_journal_delete(view), recover=True)
    job_over = _job_is_over(view)
    mark_ended = attempt is not None and attempt.is_open and job_over
    alive = attempt is not None and attempt.is_open and not job_over
    if view.deletion is None and job_over and _may_not_have_begun(view):
        return Actions(revoke=True)
    if view.deletion is None:
        launch = attempt is None and view.has_object and not view.is_over
        ending = _ending(view) if alive else None
        if ending is not None:
            stop, cancel, again_s = _end(replace(view, deletion=ending), ending)
            return Actions(stop=stop, cancel=cancel, again_s=again_s)
        cancel = alive and view.outcome is not None and view.outcome.cancel and _may_cancel(view)
        return Actions(launch=launch, cancel=cancel, mark_ended=mark_ended)
    stop, cancel, again_s = _end(view, view.deletion) if alive else (None, False, None)
    gone = not alive or view.outcome is not None
    return Actions(
        journal_delete=_journal_delete(view),
        stop=stop,
        cancel=cancel,
        mark_ended=mark_ended,
        finish_deletion=gone and view.has_object,
        forget=not alive and view.deletion.object_gone,
        again_s=again_s,
    )


def _ending(view: PodView) -> Deletion | None:
    """What somebody asks for who says that a Pod is over which runs: the end of a deletion, but for
    the object (pkg/kubelet/pod_workers.go, where a terminal phase terminates the pod)."""
    if not view.is_over or not view.has_object or view.over_since_s is None:
        return None
    if view.outcome is not None:
        return None
    return Deletion(
        grace_period_s=view.grace_period_s, observed_at_s=view.over_since_s, object_gone=False
    )


def _journal_delete(view: PodView) -> bool:
    return view.deletion is not None and not view.deletion_journalled and view.attempt is not None


def _may_not_have_begun(view: PodView) -> bool:
    broke_down = view.outcome is not None and view.outcome.may_not_have_begun
    return broke_down and view.may_begin_again and not view.is_over


def _job_is_over(view: PodView) -> bool:
    # What has ended stays so. A lost job is over however its pod ended: Slurm will never say so.
    job = view.seen.job
    if job is not None and job.state.is_terminal:
        # A supervisor that speaks is there, whatever Slurm says; but no deletion waits for ever.
        return not _speaks(view) or _waited_s(view) > _deadline_s(view) + STOP_MARGIN_S
    return is_lost(view.seen, now_s=view.now_s)


def _speaks(view: PodView) -> bool:
    record = view.seen.record
    finished = record is not None and record.phase is PodPhase.FINISHED
    return view.seen.is_connected and not finished


def _waited_s(view: PodView) -> float:
    return view.now_s - view.deletion.observed_at_s if view.deletion is not None else 0.0


def _deadline_s(view: PodView) -> float:
    """How long after its observation a deletion is left to the supervisor."""
    grace_s = view.deletion.grace_period_s if view.deletion is not None else 0
    return grace_s + STOP_MARGIN_S + (0.0 if _speaks(view) else STOP_FILE_S)


def _end(view: PodView, deletion: Deletion) -> tuple[int | None, bool, float | None]:
    """How to bring a live job to its end: (stop, cancel, look again after seconds)."""
    record, job = view.seen.record, view.seen.job
    waited_s, deadline_s = _waited_s(view), _deadline_s(view)
    overdue = waited_s > deadline_s
    if record is None and not view.seen.is_connected:
        # Before Slurm has answered nothing is known: the job may run, and has its grace period.
        if not view.seen.was_looked_for and not overdue:
            return None, False, deadline_s - waited_s + 0.1
        if job is not None and job.state.is_queued:
            return None, _may_cancel(view), CANCEL_AGAIN_S
    cancel = overdue and _may_cancel(view)
    again_s = CANCEL_AGAIN_S if overdue else deadline_s - waited_s + 0.1
    if record is not None and record.phase is PodPhase.FINISHED:
        # Its job ends by itself. The grace period is none any more once the object is gone.
        since_s = view.seen.heard_at_s or deletion.observed_at_s
        cancel = cancel and view.now_s - since_s > STOP_MARGIN_S
        return None, cancel, CANCEL_AGAIN_S
    return deletion.grace_period_s, cancel, again_s


def _may_cancel(view: PodView) -> bool:
    return view.cancelled_at_s is None or view.now_s - view.cancelled_at_s >= CANCEL_AGAIN_S
