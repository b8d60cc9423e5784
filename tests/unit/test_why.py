"""`hpk why` and `hpk ps`: what is made of the facts."""

from __future__ import annotations

from typing import Any

import pytest

from hpk.journal import Attempt
from hpk.model.errors import ParseError
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.placement import Placement
from hpk.report.cluster import PrintedPod, read_table
from hpk.report.ps import rows
from hpk.report.why import Facts, Why, explain_why
from hpk.slurm.usage import JobUsage, parse_sacct_usage, parse_squeue_usage

UID = PodUid("0f")
ATTEMPT = Attempt(
    pod=PodRef("default", "p", UID),
    nonce=Nonce("0" * 16),
    intent_at_s=1.0,
    placement=Placement(SlurmJobId(42)),
)


def job(state: str = "RUNNING", **changed: Any) -> JobUsage:
    fields: dict[str, Any] = {
        "job_id": SlurmJobId(42),
        "state": state,
        "reason": "",
        "nodes": "n1",
        "start_time_s": None,
        "elapsed_s": 3600,
        "time_left_s": None,
        "cpus": 4,
        "gpus": 2,
    }
    return JobUsage(**{**fields, **changed})


def a_pod(node: str = "main", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "p", "uid": UID},
        "spec": {"nodeName": node} if node else {},
        "status": status,
    }


def container(**state: Any) -> dict[str, Any]:
    return {"name": "main", "restartCount": 3, "state": state}


def why(**facts: Any) -> Why:
    return explain_why(Facts(name="p", namespace="default", **facts))


@pytest.mark.parametrize(
    ("reason", "said", "then"),
    [
        ("Priority", "higher priority", "wait"),
        ("JobHeldUser", "held by its owner", "scontrol release 42"),
        ("QOSMaxCpuPerUserLimit", "limit of its QOS", "another account or QOS"),
        ("AssocGrpCpuLimit", "limit of the account", "another account or QOS"),
        ("ReqNodeNotAvail, UnavailableNodes:n3", "down, drained or reserved", "sinfo -R"),
        ("PartitionTimeLimit", "more time than", "--time"),
        ("SomethingNew", "Slurm says SomethingNew", "squeue(1)"),
        ("", "has not looked at it yet", "wait"),
    ],
)
def test_a_queued_job(reason: str, said: str, then: str) -> None:
    queued = job("PENDING", reason=reason, nodes="", elapsed_s=0, start_time_s=1.7e9)
    answer = why(pod=a_pod(phase="Pending"), attempt=ATTEMPT, job=queued)
    assert said in answer.text
    assert "expected to start 2023-11-" in answer.text
    assert then in answer.next


@pytest.mark.parametrize(
    ("reason", "then"),
    [
        ("SlurmTimeout", "raise --time"),
        ("OOMKilled", "memory"),
        ("SlurmCancelled", "sacct -j 42"),
        ("SlurmFailed", "/job.log"),
        ("SlurmNodeFail", "start it again"),
    ],
)
def test_an_end_by_slurm(reason: str, then: str) -> None:
    failed = a_pod(phase="Failed", reason=reason, message="Slurm job 42 ended")
    answer = why(pod=failed, attempt=ATTEMPT, job=job("FAILED"), log="/job.log")
    assert "Slurm job 42 ended." in answer.text
    assert then in answer.next


@pytest.mark.parametrize(
    ("code", "said"), [(7, "its own"), (127, "no such command"), (139, "crashed")]
)
def test_an_end_of_its_own(code: int, said: str) -> None:
    failed = a_pod(phase="Failed", containerStatuses=[container(terminated={"exitCode": code})])
    answer = why(pod=failed, attempt=ATTEMPT, job=job("COMPLETED"))
    assert f"exit code {code}" in answer.text
    assert said in answer.text
    assert answer.next == "kubectl logs -n default p"


def test_a_refusal_hands_on_its_remedy() -> None:
    message = "spec.containers[0].tty: is not supported yet: remove it"
    answer = why(pod=a_pod(phase="Failed", reason="UnsupportedField", message=message))
    assert answer.next == "remove it; then kubectl delete pod -n default p, and create it anew"
    assert "Nothing is submitted" in answer.text


def test_a_submit_limit_needs_nothing() -> None:
    waiting = container(waiting={"reason": "SlurmSubmitLimit", "message": "AssocMaxSubmitJobLimit"})
    answer = why(pod=a_pod(phase="Pending", containerStatuses=[waiting]))
    assert "AssocMaxSubmitJobLimit." in answer.text
    assert answer.next.startswith("nothing")


def test_images_that_are_being_made_are_waited_for() -> None:
    waiting = a_pod(
        phase="Pending", containerStatuses=[container(waiting={"reason": "PodInitializing"})]
    )
    pulling = {"reason": "Pulling", "type": "Normal", "message": 'Pulling image "a", "b"'}
    answer = why(pod=waiting, events=[pulling])
    assert "waits for its images" in answer.text
    assert answer.next.startswith("nothing")
    assert "images" not in why(pod=waiting, events=[pulling], attempt=ATTEMPT).text


def test_no_node_an_image_a_loop_a_success() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    answer = why(pod=a_pod("", phase="Pending", conditions=[condition]))
    assert "0/2 nodes are available." in answer.text
    waiting = container(waiting={"reason": "ErrImagePull", "message": "no such image"})
    answer = why(pod=a_pod(phase="Pending", containerStatuses=[waiting]))
    assert "no such image." in answer.text
    assert "registry" in answer.next
    loop = container(waiting={"reason": "CrashLoopBackOff"}) | {
        "lastState": {"terminated": {"exitCode": 1}}
    }
    answer = why(pod=a_pod(phase="Running", containerStatuses=[loop]), attempt=ATTEMPT, job=job())
    assert "3 times again" in answer.text
    assert answer.next.endswith("--previous")
    answer = why(pod=a_pod(phase="Succeeded"), attempt=ATTEMPT, job=job("COMPLETED"))
    assert "succeeded. Slurm job 42 is COMPLETED on n1, 60 min so far." in answer.text


def test_silence_is_told_of() -> None:
    answer = why(attempt=ATTEMPT, job=job(), api_problem="the control plane is down")
    assert "Of Kubernetes nothing is known: the control plane is down." in answer.text
    assert answer.next == "hpk up"
    answer = why(pod=a_pod(phase="Running"), attempt=ATTEMPT, slurm_problem="timed out")
    assert "Slurm does not answer: timed out." in answer.text
    assert "There is no Pod default/p" in why().text


def test_rows_stand_beside_their_jobs() -> None:
    other = Attempt(
        pod=PodRef("gone", "q", PodUid("1")),
        nonce=Nonce("1" * 16),
        intent_at_s=1.0,
        placement=Placement(SlurmJobId(43)),
    )
    found = rows(
        [PrintedPod(pod=a_pod(phase="Running"), status="Running")],
        {UID: ATTEMPT, PodUid("1"): other},
        {SlurmJobId(42): job(time_left_s=60)},
        namespace=None,
    )
    assert [(row.pod, row.status, row.state) for row in found] == [
        ("p", "Running", "RUNNING"),
        ("q", "NoPod", "UNKNOWN"),
    ]
    assert (found[0].cpu_hours, found[0].gpu_hours, found[0].time_left_s) == (4.0, 2.0, 60)
    assert len(rows([], {PodUid("1"): other}, {}, namespace="default")) == 0


def test_a_table_of_pods_is_read_and_nothing_else() -> None:
    one = a_pod(phase="Pending")
    columns = [{"name": "Name"}, {"name": "Status"}]
    table = {"columnDefinitions": columns, "rows": [{"cells": ["p", "Init:0/1"], "object": one}]}
    assert read_table(table) == [PrintedPod(pod=one, status="Init:0/1")]
    assert read_table({"columnDefinitions": columns, "rows": None}) == []
    short = {**table, "rows": [{"cells": ["p"], "object": one}]}
    no_status: list[dict[str, Any]] = [
        {"items": []},
        {**table, "columnDefinitions": columns[:1]},
        short,
    ]
    for wrong in no_status:
        with pytest.raises(ParseError, match="table of Pods"):
            read_table(wrong)


def test_squeue_and_sacct_are_read() -> None:
    line = (
        "42      |RUNNING |n[1-2] |1700000000 |1-02:03:04 |UNLIMITED |4 "
        "|cpu=4,mem=1000M,gres/gpu=2,gres/gpu:a100=2 |None|"
    )
    found = parse_squeue_usage(f"{line}\n7|x\n", {SlurmJobId(42)})[SlurmJobId(42)]
    assert (found.elapsed_s, found.time_left_s, found.cpus, found.gpus) == (93784, None, 4, 2)
    assert (found.reason, found.nodes) == ("", "n[1-2]")
    text = "42|CANCELLED by 1000|None assigned|1700000000|0|0||Priority\n"
    ended = parse_sacct_usage(text)[SlurmJobId(42)]
    assert (ended.state, ended.nodes, ended.start_time_s) == ("CANCELLED", "", None)
    with pytest.raises(ParseError):
        parse_squeue_usage("42|RUNNING", {SlurmJobId(42)})
    with pytest.raises(ParseError):
        parse_sacct_usage("42|no state|n1|0|0|0||\n")
