"""What the pod worker decides, case by case."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from hpk.journal import Attempt
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.model.placement import Placement
from hpk.model.record import (
    ContainerPhase,
    ContainerRecord,
    ContainerState,
    PodPhase,
    StopCause,
    SupervisorRecord,
)
from hpk.planning.admission import admit_pod
from hpk.planning.job.site import SiteSettings
from kubelet.evidence.observations import (
    COMES_BACK_S,
    FIRST_COMES_S,
    Observation,
    Observations,
)
from kubelet.evidence.outcome import LOST_AFTER_S, RECORD_DELAY_S, pod_outcome
from kubelet.pods.actions import (
    CANCEL_AGAIN_S,
    STOP_FILE_S,
    STOP_MARGIN_S,
    Deletion,
    PodView,
    compute_actions,
)
from kubelet.pods.pod_admission import without_debuggers
from tests.planning import a_pod
from tests.records import a_record

NOW_S = 1000.0
POD = PodRef("default", "web", PodUid("u-1"))


def attempt(**changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "pod": POD,
        "nonce": Nonce("0123456789abcdef"),
        "intent_at_s": 1.0,
        "placement": Placement(SlurmJobId(7)),
    }
    return Attempt(**(values | changes))


def job(state: JobState, reason: str = "") -> JobObservation:
    return JobObservation(
        job_id=SlurmJobId(7),
        name="default/web@0123456789abcdef",
        state=state,
        reason=reason,
        nodes="n1",
        exit_code=None,
        signal=0,
        start_time_s=None,
        end_time_s=None,
        source="squeue",
    )


def record(
    phase: PodPhase = PodPhase.RUNNING,
    cause: StopCause | None = None,
    exit_code: int | None = None,
) -> SupervisorRecord:
    running = exit_code is None
    state = ContainerState(
        ContainerPhase.RUNNING if running else ContainerPhase.TERMINATED, exit_code=exit_code
    )
    return a_record(
        uid=POD.uid,
        job_id=SlurmJobId(7),
        phase=phase,
        containers=(ContainerRecord("main", state, None, 0, "c1", "logs/main/0.log"),),
        stop_cause=cause,
    )


def view(
    *,
    of: Attempt | None = None,
    seen: Observation | None = None,
    deletion: Deletion | None = None,
    **changes: Any,
) -> PodView:
    observation = seen or Observation()
    values: dict[str, Any] = {
        "has_object": True,
        "is_over": False,
        "deletion": deletion,
        "deletion_journalled": False,
        "attempt": of,
        "seen": observation,
        "outcome": pod_outcome(observation, now_s=NOW_S),
        "cancelled_at_s": None,
        "now_s": NOW_S,
    }
    return PodView(**(values | changes))


def deletion(*, since_s: float = NOW_S, grace_s: int = 30, gone: bool = False) -> Deletion:
    return Deletion(grace_period_s=grace_s, observed_at_s=since_s, object_gone=gone)


def test_a_new_pod_is_launched() -> None:
    assert compute_actions(view()).launch


@pytest.mark.parametrize("changes", [{"is_over": True}, {"has_object": False}])
def test_a_pod_that_is_over_or_unknown_is_not_launched(changes: dict[str, Any]) -> None:
    assert not compute_actions(view(**changes)).launch


def test_a_submission_without_an_id_is_recovered_and_nothing_else_is_done() -> None:
    actions = compute_actions(view(of=attempt(placement=None)))
    assert actions.recover
    assert not actions.launch


def test_a_deletion_is_journalled_even_before_an_unknown_submission_is_recovered() -> None:
    actions = compute_actions(view(of=attempt(placement=None), deletion=deletion()))
    assert actions.recover
    assert actions.journal_delete


def test_a_pod_with_a_job_is_never_launched_again() -> None:
    for state in JobState:
        actions = compute_actions(view(of=attempt(), seen=Observation(job=job(state))))
        assert not actions.launch, state


def test_deleting_a_pod_that_was_never_submitted_deletes_the_object_alone() -> None:
    actions = compute_actions(view(deletion=deletion()))
    assert actions.finish_deletion
    assert not actions.cancel
    assert not actions.journal_delete


def test_deleting_a_queued_pod_cancels_its_job_and_waits_for_it() -> None:
    seen = Observation(job=job(JobState.PENDING, "Resources"))
    actions = compute_actions(view(of=attempt(), seen=seen, deletion=deletion()))
    assert actions.cancel
    assert actions.stop is None
    assert not actions.finish_deletion


def test_deleting_a_running_pod_stops_it_with_its_grace_period() -> None:
    for is_connected, look_s in ((True, 0), (False, STOP_FILE_S)):
        seen = Observation(job=job(JobState.RUNNING), record=record(), is_connected=is_connected)
        actions = compute_actions(view(of=attempt(), seen=seen, deletion=deletion(grace_s=7)))
        assert actions.stop == 7
        assert not actions.cancel
        assert not actions.finish_deletion
        assert actions.again_s == pytest.approx(7 + STOP_MARGIN_S + look_s, abs=1)


def test_a_running_pod_that_others_say_is_over_is_stopped_and_keeps_its_object() -> None:
    over: dict[str, Any] = {"is_over": True, "over_since_s": NOW_S, "grace_period_s": 7}
    seen = Observation(job=job(JobState.RUNNING), record=record(), is_connected=True)
    actions = compute_actions(view(of=attempt(), seen=seen, **over))
    assert (actions.stop, actions.cancel, actions.journal_delete) == (7, False, False)
    assert not actions.finish_deletion
    late: dict[str, Any] = {**over, "over_since_s": NOW_S - 7 - STOP_MARGIN_S - 1}
    assert compute_actions(view(of=attempt(), seen=seen, **late)).cancel
    queued = Observation(job=job(JobState.PENDING, "Resources"))
    assert compute_actions(view(of=attempt(), seen=queued, **over)).cancel
    # After a restart nothing is known yet: a pod that ended by itself has nothing to stop.
    unseen = compute_actions(view(of=attempt(), seen=Observation(), **over))
    assert (unseen.stop, unseen.cancel) == (None, False)
    ended = Observation(job=job(JobState.RUNNING), record=record(PodPhase.FINISHED, None, 0))
    assert not compute_actions(view(of=attempt(), seen=ended, **over)).cancel
    missing = compute_actions(view(of=attempt(), seen=seen, has_object=False, **over))
    assert (missing.stop, missing.cancel) == (None, False)


def test_a_supervisor_that_overstays_is_cancelled_but_not_at_every_look() -> None:
    seen = Observation(job=job(JobState.RUNNING), record=record())
    late = deletion(since_s=NOW_S - 60, grace_s=5)
    assert compute_actions(view(of=attempt(), seen=seen, deletion=late)).cancel
    recently = NOW_S - CANCEL_AGAIN_S / 2
    again = view(of=attempt(), seen=seen, deletion=late, cancelled_at_s=recently)
    assert not compute_actions(again).cancel


def test_a_finished_record_lets_the_object_go_before_slurm_has_noticed() -> None:
    seen = Observation(
        job=job(JobState.RUNNING), record=record(PodPhase.FINISHED, StopCause.REQUESTED, 143)
    )
    actions = compute_actions(view(of=attempt(), seen=seen, deletion=deletion()))
    assert actions.finish_deletion
    assert not actions.forget
    assert not actions.mark_ended


def test_a_job_whose_supervisor_has_said_goodbye_ends_by_itself() -> None:
    finished = record(PodPhase.FINISHED, StopCause.REQUESTED, 0)
    late = deletion(since_s=NOW_S - 100, grace_s=0, gone=True)
    for ago_s, cancel in ((1.0, False), (STOP_MARGIN_S + 1, True)):
        seen = Observation(job=job(JobState.RUNNING), record=finished, heard_at_s=NOW_S - ago_s)
        actions = compute_actions(view(of=attempt(), seen=seen, deletion=late))
        assert (actions.cancel, actions.stop) == (cancel, None)


def test_files_are_removed_only_when_object_and_job_are_gone() -> None:
    ended = Observation(job=job(JobState.CANCELLED))
    gone = deletion(gone=True)
    live = Observation(job=job(JobState.RUNNING), record=record())
    assert not compute_actions(view(of=attempt(), seen=live, deletion=gone)).forget
    assert compute_actions(view(of=attempt(), seen=ended, deletion=gone)).forget


def test_a_pod_that_is_only_missing_keeps_its_job() -> None:
    seen = Observation(job=job(JobState.RUNNING), record=record())
    actions = compute_actions(view(of=attempt(), seen=seen, has_object=False))
    assert not actions.cancel
    assert actions.stop is None
    assert not actions.forget


def test_an_ended_job_is_marked() -> None:
    seen = Observation(job=job(JobState.COMPLETED))
    assert compute_actions(view(of=attempt(), seen=seen)).mark_ended


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (JobState.CANCELLED, "SlurmCancelled"),
        (JobState.TIMEOUT, "SlurmTimeout"),
        (JobState.OUT_OF_MEMORY, "OOMKilled"),
        (JobState.NODE_FAIL, "SlurmNodeFail"),
        (JobState.PREEMPTED, "SlurmPreempted"),
        (JobState.COMPLETED, "SlurmJobLost"),
    ],
)
def test_without_a_record_slurm_says_how_it_ended(state: JobState, reason: str) -> None:
    outcome = pod_outcome(Observation(job=job(state)), now_s=NOW_S)
    assert outcome is not None
    assert not outcome.succeeded
    assert outcome.reason == reason
    assert "job 7" in outcome.message


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.BOOT_FAIL, JobState.NODE_FAIL])
def test_an_attempt_that_broke_down_in_silence_is_revoked_before_the_pod_fails(
    state: JobState,
) -> None:
    seen = Observation(job=job(state))
    assert compute_actions(view(of=attempt(), seen=seen, may_begin_again=True)).revoke
    ended = view(of=attempt(ended=True), seen=seen, may_begin_again=True)
    assert compute_actions(ended).revoke
    began = compute_actions(view(of=attempt(), seen=seen))
    assert (began.revoke, began.mark_ended) == (False, True)
    deleted = view(of=attempt(), seen=seen, deletion=deletion(), may_begin_again=True)
    assert not compute_actions(deleted).revoke


@pytest.mark.parametrize(
    "seen",
    [
        Observation(job=job(JobState.CANCELLED)),
        Observation(job=job(JobState.TIMEOUT)),
        Observation(job=job(JobState.FAILED), record=record()),
    ],
)
def test_what_began_or_was_meant_to_end_is_not_submitted_again(seen: Observation) -> None:
    assert not compute_actions(view(of=attempt(), seen=seen, may_begin_again=True)).revoke


def test_a_lost_job_that_never_spoke_may_not_have_begun() -> None:
    seen = Observation(absent_since_s=NOW_S - LOST_AFTER_S - 1)
    assert compute_actions(view(of=attempt(), seen=seen, may_begin_again=True)).revoke


def test_every_terminal_state_has_an_outcome() -> None:
    for state in JobState:
        outcome = pod_outcome(Observation(job=job(state)), now_s=NOW_S)
        assert (outcome is not None) == state.is_terminal, state


def test_a_finished_record_wins_over_slurm() -> None:
    finished = record(PodPhase.FINISHED, StopCause.COMPLETED, 0)
    seen = Observation(record=finished, job=job(JobState.OUT_OF_MEMORY))
    outcome = pod_outcome(seen, now_s=NOW_S)
    assert outcome is not None
    assert outcome.succeeded


def test_a_signalled_supervisor_waits_for_slurms_word() -> None:
    finished = record(PodPhase.FINISHED, StopCause.SIGNALLED, 0)
    running = Observation(record=finished, job=job(JobState.RUNNING))
    assert pod_outcome(running, now_s=NOW_S) is None
    timeout = Observation(record=finished, job=job(JobState.TIMEOUT))
    outcome = pod_outcome(timeout, now_s=NOW_S)
    assert outcome is not None
    assert outcome.reason == "SlurmTimeout"


def test_a_requeued_job_fails_the_pod_and_is_cancelled() -> None:
    queued = job(JobState.PENDING, "BeginTime")
    since_s = NOW_S - FIRST_COMES_S
    stale = Observation(record=record(), job=queued, queued_looks=1, queued_since_s=since_s)
    assert pod_outcome(stale, now_s=NOW_S) is None
    seen = Observation(record=record(), job=queued, queued_looks=2, queued_since_s=since_s)
    outcome = pod_outcome(seen, now_s=NOW_S)
    assert outcome is not None
    assert outcome.reason == "SlurmRequeued"
    assert compute_actions(view(of=attempt(), seen=seen)).cancel


def connected(state: JobState, **changes: Any) -> Observation:
    values: dict[str, Any] = {
        "record": record(),
        "job": job(state),
        "is_connected": True,
        "was_connected": True,
    }
    return Observation(**(values | changes))


@pytest.mark.parametrize("state", list(JobState))
def test_slurm_never_overrules_a_supervisor_that_speaks(state: JobState) -> None:
    # A slurmctld that was killed shows jobs as queued, or not at all, that run.
    seen = connected(state, queued_looks=9, queued_since_s=0.0, absent_since_s=0.0)
    assert pod_outcome(seen, now_s=NOW_S) is None
    actions = compute_actions(view(of=attempt(), seen=seen))
    assert not (actions.cancel or actions.mark_ended)
    deleted = compute_actions(view(of=attempt(), seen=seen, deletion=deletion(grace_s=300)))
    assert (deleted.stop, deleted.cancel, deleted.forget) == (300, False, False)


def test_no_deletion_waits_for_ever_for_a_supervisor_whose_job_is_over() -> None:
    seen = connected(JobState.NODE_FAIL)
    late = deletion(since_s=0.0, grace_s=5, gone=True)
    assert compute_actions(view(of=attempt(), seen=seen, deletion=late)).forget


def test_a_supervisor_that_has_gone_may_come_back_before_its_job_counts_as_requeued() -> None:
    since_s = NOW_S - COMES_BACK_S + 1
    seen = connected(JobState.PENDING, is_connected=False, queued_looks=5, queued_since_s=since_s)
    assert pod_outcome(seen, now_s=NOW_S) is None
    outcome = pod_outcome(seen, now_s=NOW_S + 2)
    assert outcome is not None
    assert outcome.reason == "SlurmRequeued"


def test_a_queued_look_before_the_supervisor_came_back_counts_no_more() -> None:
    observations = Observations(lambda uid: None)
    nonce = attempt().nonce
    observations.put_record(record())
    for _ in range(3):
        observations.put_job(POD.uid, nonce, job(JobState.PENDING))
    observations.put_session(POD.uid, nonce, is_connected=True)
    observations.put_session(POD.uid, nonce, is_connected=False)
    observations.put_job(POD.uid, nonce, job(JobState.PENDING))
    assert not observations.get(nonce).was_requeued(time.monotonic() + FIRST_COMES_S)


@pytest.mark.parametrize("cause", [None, StopCause.COMPLETED, StopCause.SIGNALLED])
@pytest.mark.parametrize(
    "state", [JobState.FAILED, JobState.NODE_FAIL, JobState.COMPLETED, JobState.BOOT_FAIL]
)
def test_a_pod_that_did_its_work_is_succeeded_whatever_became_of_its_job(
    state: JobState, cause: StopCause | None
) -> None:
    phase = PodPhase.RUNNING if cause is None else PodPhase.FINISHED
    outcome = pod_outcome(Observation(record=record(phase, cause, 0), job=job(state)), now_s=NOW_S)
    assert outcome is not None
    assert outcome.succeeded


def test_a_lost_job_whose_containers_ended_with_0_is_succeeded() -> None:
    lost = Observation(record=record(exit_code=0), absent_since_s=NOW_S - LOST_AFTER_S - 1)
    outcome = pod_outcome(lost, now_s=NOW_S)
    assert outcome is not None
    assert outcome.succeeded


def test_a_job_is_not_lost_while_its_supervisor_writes_records() -> None:
    since_s = NOW_S - LOST_AFTER_S - 1
    fresh = Observation(record=record(), absent_since_s=since_s, heard_at_s=NOW_S - 1)
    assert pod_outcome(fresh, now_s=NOW_S) is None
    assert not compute_actions(view(of=attempt(), seen=fresh)).mark_ended


def test_before_slurm_has_answered_no_deletion_cancels() -> None:
    # After a restart of the kubelet: the job may run, and has its grace period still.
    unseen = view(of=attempt(), seen=Observation(), deletion=deletion(grace_s=300))
    actions = compute_actions(unseen)
    assert not (actions.cancel or actions.finish_deletion or actions.forget)
    assert actions.stop is None
    for seen in (Observation(absent_since_s=NOW_S), Observation(job=job(JobState.RUNNING))):
        looked = compute_actions(view(of=attempt(), seen=seen, deletion=deletion(grace_s=300)))
        assert (looked.stop, looked.cancel) == (300, False)


def test_absence_is_unknown_at_first_and_lost_in_the_end() -> None:
    since_s = NOW_S - LOST_AFTER_S
    assert pod_outcome(Observation(absent_since_s=since_s + 1), now_s=NOW_S) is None
    outcome = pod_outcome(Observation(absent_since_s=since_s - 1), now_s=NOW_S)
    assert outcome is not None
    assert outcome.reason == "SlurmJobLost"


def test_a_look_that_began_before_the_supervisor_spoke_is_no_requeue() -> None:
    told: list[PodUid] = []
    observations = Observations(told.append)
    nonce = attempt().nonce
    queued = job(JobState.PENDING, "Resources")
    observations.put_job(POD.uid, nonce, queued)
    observations.put_record(record())
    observations.put_job(POD.uid, nonce, queued)
    later_s = time.monotonic() + FIRST_COMES_S
    assert not observations.get(nonce).was_requeued(later_s)
    observations.put_job(POD.uid, nonce, job(JobState.RUNNING))
    observations.put_job(POD.uid, nonce, queued)
    observations.put_job(POD.uid, nonce, queued)
    later_s = time.monotonic() + FIRST_COMES_S
    assert observations.get(nonce).was_requeued(later_s)
    assert set(told) == {POD.uid}


def test_whether_a_job_that_failed_in_silence_was_claimed_is_asked_at_once() -> None:
    seen = Observation(job=job(JobState.FAILED), over_since_s=NOW_S)
    assert pod_outcome(seen, now_s=NOW_S) is None, "it was claimed: its record may be on its way"
    outcome = pod_outcome(seen, now_s=NOW_S, may_be_free=True)
    assert outcome is not None
    assert outcome.may_not_have_begun


def test_a_batch_script_that_was_killed_leaves_no_record_to_wait_for() -> None:
    killed = replace(job(JobState.FAILED), signal=9)
    outcome = pod_outcome(Observation(job=killed, over_since_s=NOW_S), now_s=NOW_S)
    assert outcome is not None
    assert outcome.reason == "SlurmFailed"


def test_a_batch_script_that_ended_may_have_a_record_on_its_way() -> None:
    ended = job(JobState.COMPLETED)
    fresh = Observation(job=ended, record=record(), over_since_s=NOW_S - RECORD_DELAY_S + 1)
    assert pod_outcome(fresh, now_s=NOW_S) is None
    late = Observation(job=ended, record=record(), over_since_s=NOW_S - RECORD_DELAY_S - 1)
    outcome = pod_outcome(late, now_s=NOW_S)
    assert outcome is not None
    assert outcome.reason == "SlurmJobLost"
    cancelled = Observation(job=job(JobState.CANCELLED), over_since_s=NOW_S)
    assert pod_outcome(cancelled, now_s=NOW_S) is not None


def test_a_debugger_added_while_the_pod_waits_is_no_part_of_what_is_admitted() -> None:
    pod = a_pod()
    pod["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]
    admit_pod(without_debuggers(pod), SiteSettings())
    assert pod["spec"]["ephemeralContainers"], "the Pod itself is as it was"
