"""A pod that something outside it ended is Failed, with a reason that says what it was.

Also: what happens to jobs without a control plane. What an ending leaves is in test_leftovers.py.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterator
from functools import partial

import pytest

from bootstrap.lab import control
from bootstrap.lab.hosts import Machine
from tests.e2e.cluster import Cluster, Json, eventually, pod
from tests.e2e.faults import PodFiles, node_of, terminated

EAT_MEMORY = "x=aaaaaaaa; while :; do x=$x$x; done"
LIMIT: Json = {"limits": {"memory": "128Mi"}}
POLITE = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"


def on(node: str, *flags: str) -> dict[str, str]:
    """Annotations that put a pod on a node."""
    return {"slurm-job.hpk.io/flags": " ".join([f"--nodelist={node}", *flags])}


def failed(cluster: Cluster, name: str, *, timeout_s: float = 90) -> Json:
    """The status of a Pod that has failed."""
    found = cluster.wait_phase(name, "Succeeded", "Failed", timeout_s=timeout_s)
    status: Json = found["status"]
    assert status["phase"] == "Failed", status
    return status


@pytest.fixture(scope="module")
def timed_out(shared: Cluster) -> str:
    """A pod with a minute to live, started first, so that others can be watched meanwhile."""
    shared.create(pod("timeout", "sh", "-c", POLITE, annotations=on("n1", "--time=1")))
    return "timeout"


def test_a_job_cancelled_from_outside(timed_out: str, cluster: Cluster) -> None:
    cluster.create(pod("cancelled", "sh", "-c", POLITE))
    cluster.wait_phase("cancelled", "Running")
    (job,) = cluster.job_ids("cancelled")
    cluster.run(["scancel", str(job)])
    status = failed(cluster, "cancelled")
    assert status["reason"] == "SlurmCancelled"
    assert f"Slurm job {job} " in status["message"]


def test_a_queued_job_cancelled_from_outside(cluster: Cluster) -> None:
    cluster.create(
        pod("dequeued", "true", annotations={"slurm-job.hpk.io/flags": "--hold"}),
    )
    job = PodFiles.of(cluster, "dequeued").job_id()
    cluster.run(["scancel", str(job)])
    status = failed(cluster, "dequeued")
    assert status["reason"] == "SlurmCancelled"
    assert status["containerStatuses"][0]["state"]["terminated"]["reason"] == "SlurmCancelled"


def test_a_container_that_needs_more_memory_than_its_limit(cluster: Cluster) -> None:
    cluster.create(pod("greedy", "sh", "-c", EAT_MEMORY, resources=LIMIT))
    failed(cluster, "greedy")
    found = terminated(cluster.get("pod", "greedy"))
    assert (found["reason"], found["exitCode"]) == ("OOMKilled", 137)


def test_a_pod_that_is_active_for_too_long(cluster: Cluster) -> None:
    cluster.create(pod("late", "sh", "-c", POLITE, spec={"activeDeadlineSeconds": 3}))
    status = failed(cluster, "late")
    assert status["reason"] == "DeadlineExceeded"
    assert len(cluster.job_ids("late")) == 1


def test_a_node_that_dies(cluster: Cluster, machine: Machine) -> None:
    cluster.create(pod("bereft", "sh", "-c", POLITE, annotations=on("n3")))
    cluster.wait_phase("bereft", "Running")
    (job,) = cluster.job_ids("bereft")
    assert node_of(cluster, job) == "n3"
    asyncio.run(control.kill_node(machine, "n3"))
    try:
        status = failed(cluster, "bereft", timeout_s=180)
    finally:
        asyncio.run(control.start_node(machine, "n3"))
    assert status["reason"] == "SlurmNodeFail"
    assert "n3" in status["message"]
    cluster.create(pod("heir", "true", annotations=on("n3")))
    assert cluster.wait_phase("heir", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"


def test_jobs_without_a_control_plane_go_on_and_then_give_their_nodes_back(
    cluster: Cluster, orphan_timeout: str
) -> None:
    count = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; sleep 0.05; done"
    cluster.create(pod("kept", "sh", "-c", count))
    cluster.wait_phase("kept", "Running")
    (job,) = cluster.job_ids("kept")
    cluster.run(["hpk", "down", "--keep-jobs"], timeout_s=120)
    seen = cluster.run(["squeue", "-h", "-j", str(job), "-o", "%T"]).stdout.strip()
    assert seen == "RUNNING"
    cluster.run(["tee", orphan_timeout], stdin="[control-plane]\norphan-timeout-s = 5\n")
    cluster.run(["hpk", "up"], timeout_s=180)
    found = cluster.wait_phase("kept", "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded"
    assert cluster.logs("kept").split("\n")[:-1] == [f"line {n}" for n in range(1, 301)]

    # By restartPolicy and the site's time, and one that would go on, by its annotation.
    cluster.create(
        pod("orphan", "sh", "-c", POLITE, restart_policy="Always"),
        pod("brief", "sh", "-c", POLITE, annotations={"slurm-job.hpk.io/orphan-timeout": "5"}),
        pod("worker", "sh", "-c", POLITE),
    )
    for name in ("brief", "worker"):
        cluster.wait_phase(name, "Running")
    cluster.wait_phase("orphan", "Running")
    jobs = {name: cluster.job_ids(name)[0] for name in ("orphan", "brief", "worker")}
    cluster.run(["hpk", "down", "--keep-jobs"], timeout_s=120)

    def queued(name: str) -> str:
        asked = ["squeue", "-h", "-j", str(jobs[name]), "-o", "%T"]
        return cluster.run(asked, check=False).stdout.strip()

    for name in ("orphan", "brief"):
        eventually(partial(queued, name), until=operator.not_, what=f"{name} gives its node back")
    assert queued("worker") == "RUNNING"
    cluster.run(["rm", orphan_timeout])
    cluster.run(["hpk", "up"], timeout_s=180)
    for name in ("orphan", "brief"):
        assert failed(cluster, name)["reason"] == "ControlPlaneLost"
    assert cluster.wait_phase("worker", "Running")


@pytest.fixture
def orphan_timeout(control_plane: Cluster) -> Iterator[str]:
    """Path of the user's configuration, which is not there; put away afterwards."""
    path = control_plane.home(".hpk/config.toml")
    assert control_plane.run(["test", "-e", path], check=False).returncode != 0
    yield path
    if control_plane.run(["rm", path], check=False).returncode == 0:
        control_plane.run(["hpk", "down", "--keep-jobs"], timeout_s=120)
    control_plane.run(["hpk", "up"], timeout_s=180)


def test_a_job_that_reaches_its_time_limit(timed_out: str, shared: Cluster) -> None:
    status = failed(shared, timed_out, timeout_s=180)
    assert status["reason"] == "SlurmTimeout"
    assert "time limit" in status["message"]
