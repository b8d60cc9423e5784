"""Deleting a Pod at each stage of its life ends its job and leaves neither object nor files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import Cluster, Json, eventually, pod
from tests.e2e.faults import (
    PodFiles,
    Witness,
    frozen,
    signal,
    wait_other_kubelet,
    witness_in,
)

HELD = {"slurm-job.hpk.io/flags": "--hold"}
_SILENT = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def witness(control_plane: Cluster) -> Iterator[Witness]:
    with witness_in(control_plane) as found:
        yield found


@pytest.fixture
def silent_registry(control_plane: Cluster) -> Iterator[str]:
    """Host and port of something that takes connections and never says a word."""
    lab = control_plane.machine.lab
    address = lab.login.address
    argv = control_plane.machine.argv(
        LOGIN, ["python3", "-I", "-c", _SILENT, address], user=lab.user(control_plane.user)
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"{address}:{server.stdout.readline().strip()}"
        server.stdin.close()
        server.wait(timeout=30)


def delete(cluster: Cluster, name: str, *options: str) -> None:
    """Delete a Pod, and see its object, its files and its jobs go."""
    files = PodFiles.of(cluster, name)
    cluster.kubectl("delete", "pod", name, "--wait=false", *options)
    eventually(
        lambda: "NotFound" in cluster.kubectl("get", "pod", name, check=False).stderr,
        what=f"{name} to be gone",
    )
    eventually(lambda: not files.exists, what=f"the directory of {name} to be gone")
    for job in cluster.job_ids(name):
        assert_job_over(cluster, job)


def assert_job_over(cluster: Cluster, job: int) -> None:
    def look() -> bool:
        queue = cluster.run(["squeue", "-h", "-j", str(job), "-o", "%T"], check=False)
        return queue.stdout.strip() == ""

    eventually(look, what=f"job {job} to leave the queue")


def wait_gone(cluster: Cluster, name: str) -> None:
    eventually(
        lambda: "NotFound" in cluster.kubectl("get", "pod", name, check=False).stderr,
        what="the Pod to be gone",
    )


def sacct_state(cluster: Cluster, job: int) -> str:
    """The job's last state, once accounting has heard of its end."""

    def look() -> str:
        found = cluster.run(["sacct", "-n", "-X", "-P", "-j", str(job), "-o", "State,End"])
        state, _, end = found.stdout.strip().partition("|")
        return "" if end in ("", "Unknown") else state.split()[0]

    return eventually(look, what=f"the end of job {job} in accounting")


def test_a_pod_whose_image_is_being_pulled(cluster: Cluster, silent_registry: str) -> None:
    cluster.create(pod("pulled", image=f"{silent_registry}/never:latest"))
    eventually(
        lambda: "Pulling" in [event["reason"] for event in cluster.events("pulled")],
        what="the event that the image is pulled",
    )
    cluster.kubectl("delete", "pod", "pulled", "--timeout=60s")
    assert cluster.job_ids("pulled") == []


def test_a_pod_whose_job_is_queued(cluster: Cluster, witness: Witness) -> None:
    cluster.create(pod("queued", "sh", "-c", witness.tell("queued"), annotations=HELD))
    job = PodFiles.of(cluster, "queued").job_id()
    delete(cluster, "queued")
    assert sacct_state(cluster, job) == "CANCELLED"
    assert witness.count("queued") == 0


def test_a_pod_whose_job_has_just_started(cluster: Cluster, witness: Witness) -> None:
    script = f"{witness.tell('started')}; sleep 1000"
    cluster.create(pod("started", "sh", "-c", script, annotations=HELD))
    files = PodFiles.of(cluster, "started")
    job = files.job_id()
    with frozen(cluster, cluster.kubelet_pid()):
        cluster.run(["scontrol", "release", str(job)])
        eventually(files.claims, what="the supervisor's claim")
        # The supervisor has dialled and gets no answer: the container cannot have been started.
        cluster.kubectl("delete", "pod", "started", "--wait=false")
        assert witness.count("started") == 0
    wait_gone(cluster, "started")
    assert_job_over(cluster, job)


def test_a_container_gets_its_grace_period_to_end_politely(
    cluster: Cluster, witness: Witness
) -> None:
    said, done = witness.tell("asked-to-end"), witness.tell("ended-politely")
    script = f"trap '{said}; sleep 2; {done}; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    grace: Json = {"terminationGracePeriodSeconds": 30}
    cluster.create(pod("polite", "sh", "-c", script, spec=grace))
    eventually(lambda: "ready" in logs_of(cluster, "polite"), what="the container's trap")
    delete(cluster, "polite")
    assert witness.count("asked-to-end") == 1
    assert witness.count("ended-politely") == 1


def test_a_container_that_ignores_sigterm_is_killed_after_its_grace_period(
    cluster: Cluster, witness: Witness
) -> None:
    said, still = witness.tell("told-to-end"), witness.tell("still-there")
    script = f"trap '{said}; sleep 2; {still}' TERM; echo ready; while :; do sleep 0.1; done"
    cluster.create(pod("stubborn", "sh", "-c", script))
    eventually(lambda: "ready" in logs_of(cluster, "stubborn"), what="the container's trap")
    delete(cluster, "stubborn", "--grace-period=6")
    assert witness.count("told-to-end") == 1
    assert witness.count("still-there") == 1


def test_a_second_deletion_may_shorten_the_grace_period(cluster: Cluster, witness: Witness) -> None:
    script = f"trap '{witness.tell('long')}' TERM; echo ready; while :; do sleep 0.1; done"
    cluster.create(pod("long", "sh", "-c", script, spec={"terminationGracePeriodSeconds": 100000}))
    eventually(lambda: "ready" in logs_of(cluster, "long"), what="the container's trap")
    cluster.kubectl("delete", "pod", "long", "--wait=false")
    eventually(lambda: witness.count("long"), what="SIGTERM")
    delete(cluster, "long", "--grace-period=1")


def test_a_forced_deletion_ends_the_job_though_the_object_is_gone_at_once(
    cluster: Cluster,
) -> None:
    cluster.create(pod("forced", "sh", "-c", "trap '' TERM; echo ready; sleep 1000"))
    eventually(lambda: "ready" in logs_of(cluster, "forced"), what="the container")
    delete(cluster, "forced", "--force", "--grace-period=0")


def test_a_pod_that_has_finished(cluster: Cluster) -> None:
    cluster.create(pod("finished", "true"))
    cluster.wait_phase("finished", "Succeeded")
    (job,) = cluster.job_ids("finished")
    delete(cluster, "finished")
    assert sacct_state(cluster, job) == "COMPLETED"


def test_a_deletion_while_the_kubelet_is_down_is_found_when_it_is_back(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(pod("unseen", "sh", "-c", f"{witness.tell('unseen')}; sleep 1000"))
    cluster.wait_phase("unseen", "Running")
    (job,) = cluster.job_ids("unseen")
    with frozen(cluster, cluster.kubelet_pid()) as kill:
        cluster.kubectl("delete", "pod", "unseen", "--wait=false", "--grace-period=1")
        marked: Json = json.loads(cluster.kubectl("get", "pod", "unseen", "-o", "json").stdout)
        assert marked["metadata"]["deletionTimestamp"]
        kill()
    wait_gone(cluster, "unseen")
    assert_job_over(cluster, job)


def test_a_forced_deletion_while_the_kubelet_is_down_ends_the_job_when_it_is_back(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(pod("unheard", "sh", "-c", f"{witness.tell('unheard')}; sleep 1000"))
    cluster.wait_phase("unheard", "Running")
    files = PodFiles.of(cluster, "unheard")
    (job,) = cluster.job_ids("unheard")
    with frozen(cluster, cluster.kubelet_pid()) as kill:
        cluster.kubectl("delete", "pod", "unheard", "--force", "--grace-period=0")
        kill()
    assert_job_over(cluster, job)
    eventually(lambda: not files.exists, what="the pod's directory to be gone")


def test_a_kubelet_that_starts_amid_a_deletion_leaves_the_pod_its_grace_period(
    cluster: Cluster, witness: Witness
) -> None:
    # Longer than Slurm would give: a job that is cancelled has KillWait.
    said, done = witness.tell("amid-said"), witness.tell("amid-done")
    script = (
        f"trap '{said}; sleep 45; {done}; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    )
    cluster.create(pod("amid", "sh", "-c", script, spec={"terminationGracePeriodSeconds": 300}))
    eventually(lambda: "ready" in logs_of(cluster, "amid"), what="the container's trap")
    (job,) = cluster.job_ids("amid")
    cluster.kubectl("delete", "pod", "amid", "--wait=false")
    eventually(lambda: witness.count("amid-said"), what="SIGTERM")
    kubelet = cluster.kubelet_pid()
    signal(cluster, kubelet, "KILL")
    wait_other_kubelet(cluster, kubelet)
    eventually(lambda: witness.count("amid-done"), timeout_s=120, what="its last word")
    wait_gone(cluster, "amid")
    assert sacct_state(cluster, job) == "COMPLETED"


def test_a_deletion_that_a_killed_kubelet_had_written_down_is_carried_out(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(pod("noted", "sh", "-c", f"{witness.tell('noted')}; sleep 1000"))
    uid = cluster.wait_phase("noted", "Running")["metadata"]["uid"]
    (job,) = cluster.job_ids("noted")
    with frozen(cluster, cluster.kubelet_pid()) as kill:
        cluster.kubectl("delete", "pod", "noted", "--force", "--grace-period=0")
        # The last thing the kubelet did: it saw the deletion and journalled it.
        note = (
            "import sys; from hpk.journal import *; from hpk.model.ids import *; "
            "from hpk.statefs import HpkPaths; "
            "record_step(HpkPaths.from_environment(), PodRef(*sys.argv[1:]), Step.DELETE)"
        )
        python = "/opt/software/hpk/bin/python"
        cluster.run([python, "-c", note, cluster.namespace, "noted", uid])
        kill()
    assert_job_over(cluster, job)
    directory = cluster.home(".hpk", "pods", uid)
    eventually(
        lambda: cluster.run(["test", "-e", directory], check=False).returncode != 0,
        what="the pod's directory to be gone",
    )


def logs_of(cluster: Cluster, name: str) -> str:
    """The log so far, "" where there is none yet."""
    return cluster.kubectl("logs", name, check=False).stdout
