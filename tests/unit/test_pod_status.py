"""The status a user reads, from what is known of the pod."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.model.plan import ImageConfig, ImagePlan
from hpk.model.record import (
    ContainerPhase,
    ContainerRecord,
    ContainerState,
)
from kubelet.evidence.observations import Observation
from kubelet.evidence.outcome import Outcome
from kubelet.status.container_statuses import Waiting
from kubelet.status.pod_status import StatusInput, compute_status, queue_waiting
from tests.records import a_record

NOW = "2026-01-02T03:04:05Z"
IMAGE = ImagePlan("busybox", "registry/busybox@sha256:1", "/i.sif", ImageConfig())


def pod(restart_policy: str = "Never", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "generation": 1},
        "spec": {
            "restartPolicy": restart_policy,
            "containers": [{"name": "main", "image": "busybox"}],
        },
        "status": {"phase": "Pending", **status},
    }


def seen(state: ContainerState, *, last: ContainerState | None = None, restarts: int = 0) -> Any:
    container = ContainerRecord("main", state, last, restarts, "c1", "logs/main/0.log")
    return Observation(record=a_record(containers=(container,)))


def status_of(
    observation: Observation | None = None,
    *,
    of: dict[str, Any] | None = None,
    outcome: Outcome | None = None,
    waiting: Waiting | None = None,
) -> dict[str, Any]:
    return compute_status(
        StatusInput(
            pod=of or pod(),
            seen=observation or Observation(),
            outcome=outcome,
            waiting=waiting or Waiting(),
            images={"main": IMAGE},
            runtime="apptainer",
            now=NOW,
        )
    )


def pod_that_asks(cpu: str, **status: Any) -> dict[str, Any]:
    made = pod(**status)
    made["spec"]["containers"][0]["resources"] = {"requests": {"cpu": cpu}}
    return made


def test_a_resize_is_told_to_be_infeasible_until_it_is_taken_back() -> None:
    observation = seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0))
    first = status_of(observation, of=pod_that_asks("1"))
    assert first["containerStatuses"][0]["allocatedResources"] == {"cpu": "1"}
    assert "PodResizePending" not in {c["type"] for c in first["conditions"]}
    resized = status_of(observation, of=pod_that_asks("2", **first))
    assert condition(resized, "PodResizePending")["reason"] == "Infeasible"
    assert resized["containerStatuses"][0]["resources"] == {"requests": {"cpu": "1"}}
    back = status_of(observation, of=pod_that_asks("1", **resized))
    assert "PodResizePending" not in {c["type"] for c in back["conditions"]}


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in status["conditions"] if c["type"] == kind)
    return found


def test_before_anything_is_known_containers_are_being_created() -> None:
    status = status_of()
    assert status["phase"] == "Pending"
    state = status["containerStatuses"][0]["state"]
    assert state == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(status, "Ready")["reason"] == "ContainersNotReady"


def test_a_running_container_makes_the_pod_running_and_ready() -> None:
    status = status_of(seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0)))
    container = status["containerStatuses"][0]
    assert status["phase"] == "Running"
    assert container["ready"]
    assert container["containerID"] == "apptainer://c1"
    assert container["imageID"] == IMAGE.image_id
    assert container["state"] == {"running": {"startedAt": "1970-01-01T00:00:00Z"}}
    assert condition(status, "Ready")["status"] == "True"
    assert status["podIP"] == status["hostIP"] == "10.0.0.1"


@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_the_exit_code_decides_the_phase(exit_code: int, phase: str) -> None:
    ended = ContainerState(
        ContainerPhase.TERMINATED,
        reason="Completed" if not exit_code else "Error",
        exit_code=exit_code,
        started_at_s=0.0,
        finished_at_s=1.0,
    )
    status = status_of(seen(ended), outcome=Outcome(succeeded=not exit_code))
    assert status["phase"] == phase
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == exit_code
    assert condition(status, "Ready")["status"] == "False"


def test_a_container_in_back_off_leaves_the_pod_running() -> None:
    waiting = ContainerState(ContainerPhase.WAITING, reason="CrashLoopBackOff", message="back-off")
    last = ContainerState(ContainerPhase.TERMINATED, exit_code=1)
    status = status_of(seen(waiting, last=last, restarts=2), of=pod("Always"))
    assert status["phase"] == "Running"
    container = status["containerStatuses"][0]
    assert container["restartCount"] == 2
    assert container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert container["lastState"]["terminated"]["exitCode"] == 1


def test_a_job_that_ended_without_a_word_ends_its_containers() -> None:
    outcome = Outcome(succeeded=False, reason="SlurmNodeFail", message="a node failed")
    status = status_of(
        seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0)), outcome=outcome
    )
    assert (status["phase"], status["reason"]) == ("Failed", "SlurmNodeFail")
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert terminated["exitCode"] == 137
    assert terminated["reason"] == "SlurmNodeFail"
    assert not status["containerStatuses"][0]["ready"]


def test_a_terminal_phase_never_changes() -> None:
    running = seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0))
    assert status_of(running, of=pod(phase="Failed"))["phase"] == "Failed"


def test_after_a_restart_of_the_kubelet_what_was_reported_stands() -> None:
    old = {"name": "main", "state": {"terminated": {"exitCode": 0}}, "ready": False}
    status = status_of(of=pod(phase="Succeeded", containerStatuses=[old]))
    assert status["phase"] == "Succeeded"
    assert status["containerStatuses"] == [old]


def test_conditions_of_others_stay_and_transition_times_move_only_with_the_status() -> None:
    old = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "False", "lastTransitionTime": "2020-01-01T00:00:00Z"},
    ]
    status = status_of(of=pod(conditions=old))
    assert condition(status, "PodScheduled") == old[0]
    assert condition(status, "Ready")["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    ready = status_of(
        seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0)), of=pod(conditions=old)
    )
    assert condition(ready, "Ready")["lastTransitionTime"] == NOW


RUNNING = ContainerState(ContainerPhase.RUNNING, started_at_s=0.0)
WAITING = ContainerState(ContainerPhase.WAITING, reason="PodInitializing")


def ended(code: int) -> ContainerState:
    return ContainerState(ContainerPhase.TERMINATED, exit_code=code, finished_at_s=1.0)


def record_of(name: str, state: ContainerState, last: ContainerState | None = None) -> Any:
    return ContainerRecord(name, state, last, 0, f"id-{name}", f"logs/{name}/0.log")


def wide(policy: str = "Never") -> dict[str, Any]:
    """Two init containers, the second a sidecar, and two containers."""
    found = pod(policy)
    found["spec"]["initContainers"] = [
        {"name": "first", "image": "i"},
        {"name": "side", "image": "i", "restartPolicy": "Always"},
    ]
    found["spec"]["containers"].append({"name": "two", "image": "t"})
    return found


def wide_seen(
    first: Any, side: Any, main: Any = WAITING, two: Any = WAITING, *, last: Any = None
) -> Observation:
    record = seen(RUNNING).record
    return Observation(
        record=dataclasses.replace(
            record,
            init_containers=(record_of("first", first, last), record_of("side", side)),
            containers=(record_of("main", main), record_of("two", two)),
        )
    )


def initialized(status: dict[str, Any]) -> tuple[str, str]:
    found = condition(status, "Initialized")
    return found["status"], found.get("message", "")


def states(status: dict[str, Any], field: str) -> list[str]:
    return [next(iter(item["state"])) for item in status[field]]


def test_before_anything_is_known_the_pod_is_initializing() -> None:
    status = status_of(of=wide())
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status[field]:
            assert container["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert status["phase"] == "Pending"
    assert initialized(status) == ("False", "containers with incomplete status: [first side]")


def test_an_init_container_runs() -> None:
    status = status_of(wide_seen(RUNNING, WAITING), of=wide())
    assert status["phase"] == "Pending"
    assert states(status, "initContainerStatuses") == ["running", "waiting"]
    assert not status["initContainerStatuses"][0]["ready"]
    assert initialized(status) == ("False", "containers with incomplete status: [first side]")


def test_an_init_container_has_done_its_work() -> None:
    status = status_of(wide_seen(ended(0), WAITING), of=wide())
    assert status["phase"] == "Pending"
    assert status["initContainerStatuses"][0]["ready"]
    assert initialized(status) == ("False", "containers with incomplete status: [side]")


def test_all_containers_run_beside_the_sidecar() -> None:
    status = status_of(wide_seen(ended(0), RUNNING, RUNNING, RUNNING), of=wide())
    assert status["phase"] == "Running"
    assert initialized(status) == ("True", "")
    assert condition(status, "Ready")["status"] == "True"


def test_a_sidecar_that_is_down_makes_the_pod_unready() -> None:
    status = status_of(wide_seen(ended(0), ended(1), RUNNING, RUNNING), of=wide("Always"))
    assert status["phase"] == "Running"
    assert initialized(status) == ("True", "")
    assert condition(status, "Ready")["message"] == "containers with unready status: [side]"


def test_one_of_two_containers_still_waits() -> None:
    status = status_of(wide_seen(ended(0), RUNNING, RUNNING, WAITING), of=wide())
    assert status["phase"] == "Pending"
    assert initialized(status) == ("True", "")


def test_an_init_container_in_back_off_leaves_the_pod_pending() -> None:
    back_off = ContainerState(ContainerPhase.WAITING, reason="CrashLoopBackOff")
    status = status_of(wide_seen(back_off, WAITING, last=ended(1)), of=wide("OnFailure"))
    assert status["phase"] == "Pending"
    assert initialized(status)[0] == "False"


def test_an_init_container_that_failed_leaves_the_others_waiting() -> None:
    outcome = Outcome(succeeded=False)
    status = status_of(wide_seen(ended(3), WAITING), of=wide(), outcome=outcome)
    assert status["phase"] == "Failed"
    assert states(status, "initContainerStatuses") == ["terminated", "waiting"]
    assert states(status, "containerStatuses") == ["waiting", "waiting"]
    assert status_of(wide_seen(ended(3), WAITING), of=wide())["phase"] == "Pending"


def test_a_job_that_ended_ends_what_had_begun() -> None:
    outcome = Outcome(succeeded=False, reason="SlurmTimeout", message="m")
    status = status_of(wide_seen(ended(0), RUNNING, RUNNING, WAITING), of=wide(), outcome=outcome)
    assert states(status, "initContainerStatuses") == ["terminated", "terminated"]
    assert states(status, "containerStatuses") == ["terminated", "terminated"]
    side = status["initContainerStatuses"][1]["state"]["terminated"]
    assert (side["reason"], side["containerID"]) == ("SlurmTimeout", "apptainer://id-side")


def test_a_pod_succeeds_whatever_its_sidecar_says() -> None:
    status = status_of(
        wide_seen(ended(0), ended(137), ended(0), ended(0)),
        of=wide(),
        outcome=Outcome(succeeded=True),
    )
    assert status["phase"] == "Succeeded"
    assert condition(status, "Initialized")["reason"] == "PodCompleted"


def test_a_queued_job_shows_slurms_reason() -> None:
    job = JobObservation(
        job_id=SlurmJobId(9),
        name="",
        state=JobState.PENDING,
        reason="Resources",
        nodes="",
        exit_code=None,
        signal=0,
        start_time_s=0.0,
        end_time_s=None,
        source="squeue",
    )
    waiting = queue_waiting(job)
    assert waiting.reason == "SlurmResources"
    assert "job 9" in waiting.message
    assert "1970-01-01T00:00:00Z" in waiting.message


@pytest.mark.parametrize(("started", "ready"), [(False, False), (True, False), (True, True)])
def test_what_the_supervisor_says_of_probes_counts(started: bool, ready: bool) -> None:
    observation = seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0))
    told = dataclasses.replace(observation.record.containers[0], started=started, ready=ready)
    record = dataclasses.replace(observation.record, containers=(told,))
    status = status_of(dataclasses.replace(observation, record=record))
    container = status["containerStatuses"][0]
    assert (container["started"], container["ready"]) == (started, ready)
    assert condition(status, "Ready")["status"] == str(ready)
    assert status["phase"] == "Running"


def test_gates_of_others_keep_a_pod_from_being_ready() -> None:
    running = seen(ContainerState(ContainerPhase.RUNNING, started_at_s=0.0))
    gated = pod(conditions=[{"type": "a", "status": "True"}, {"type": "b", "status": "False"}])
    gated["spec"]["readinessGates"] = [{"conditionType": kind} for kind in "abc"]
    status = status_of(running, of=gated)
    assert condition(status, "ContainersReady")["status"] == "True"
    assert condition(status, "Ready")["status"] == "False"
    assert condition(status, "Ready")["reason"] == "ReadinessGatesNotReady"
    assert condition(status, "Ready")["message"] == (
        'the status of pod readiness gate "b" is not "True", but False, '
        'corresponding condition of pod readiness gate "c" does not exist.'
    )
    gated["status"]["conditions"] = [{"type": kind, "status": "True"} for kind in "abc"]
    assert condition(status_of(running, of=gated), "Ready")["status"] == "True"


def test_why_a_pod_ended_is_told_once_and_stays() -> None:
    requeued = Outcome(succeeded=False, reason="SlurmRequeued", message="it was requeued")
    told = status_of(outcome=requeued)
    # Its job was cancelled for that, which is what Slurm says from then on.
    cancelled = Outcome(succeeded=False, reason="SlurmCancelled", message="it was cancelled")
    later = status_of(of=pod(**told), outcome=cancelled)
    assert (later["phase"], later["reason"]) == ("Failed", "SlurmRequeued")
    assert later["message"] == "it was requeued"
