"""Whatever is killed, and whenever: one Slurm job, one run, the right end, the whole log.

The kubelet is killed at named points, each shown to be hit: frozen or held there first, or killed
by the very sbatch it runs. The container's first instruction tells a witness of each run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bootstrap.lab import control
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import Cluster, Json, eventually, pod
from tests.e2e.faults import (
    FaultySbatch,
    PodFiles,
    Witness,
    frozen,
    node_of,
    processes,
    signal,
    terminated,
    wait_other_kubelet,
    witness_in,
)

LINES = [f"line {number}" for number in range(1, 201)]
PRINT_LINES = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; done"


@pytest.fixture(scope="module")
def control_plane(machine: Machine) -> Iterator[Cluster]:
    """alice's control plane, with an sbatch on its PATH that can be armed."""
    cluster = Cluster(machine=machine, user="alice")
    was_up = bool(cluster.read(cluster.home(".hpk/endpoint.json")))
    sbatch = FaultySbatch(cluster)
    sbatch.install()
    cluster.run(["hpk", "down", "--keep-jobs"], timeout_s=120)
    path = cluster.run(["printenv", "PATH"]).stdout.strip()
    with_faults = ["env", f"PATH={sbatch.directory}:{path}"]
    cluster.run([*with_faults, "hpk", "up"], timeout_s=180)
    yield cluster
    cluster.run(["hpk", "down", "--cancel-jobs"], timeout_s=120)
    sbatch.remove()
    if was_up:
        cluster.run(["hpk", "up"], timeout_s=180)


@pytest.fixture
def sbatch(control_plane: Cluster) -> FaultySbatch:
    return FaultySbatch(control_plane)


@pytest.fixture(scope="module")
def witness(control_plane: Cluster) -> Iterator[Witness]:
    with witness_in(control_plane) as found:
        yield found


def counted_pod(witness: Witness, name: str, then: str = "true", **options: Json) -> Json:
    """A Pod whose first instruction tells the witness, and that prints LINES."""
    script = f"{witness.tell(name)}; {PRINT_LINES}; {then}"
    return pod(name, "sh", "-c", script, **options)  # type: ignore[arg-type]


def assert_ran_once(cluster: Cluster, witness: Witness, name: str) -> None:
    """Exactly one Slurm job, one claim, one run, and every line of its log, once."""
    assert witness.count(name) == 1
    assert len(cluster.job_ids(name)) == 1
    files = PodFiles.of(cluster, name)
    claims = [claim for claim in files.claims() if claim.startswith("supervisor ")]
    assert len(claims) == 1
    assert [line for line in cluster.logs(name).splitlines() if line in LINES] == LINES


def assert_succeeded(cluster: Cluster, witness: Witness, name: str) -> None:
    found = cluster.wait_phase(name, "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    assert terminated(found)["exitCode"] == 0
    assert_ran_once(cluster, witness, name)


def test_the_kubelet_is_killed_when_the_intent_is_journalled_and_nothing_is_submitted(
    cluster: Cluster, witness: Witness, sbatch: FaultySbatch
) -> None:
    kubelet = cluster.kubelet_pid()
    sbatch.arm("kill-instead")
    cluster.create(counted_pod(witness, "intent"))
    assert sbatch.wait_hit() == f"kill-instead {kubelet}"
    files = PodFiles.of(cluster, "intent")
    assert_succeeded(cluster, witness, "intent")
    # What was revoked is dropped from the journal when the next attempt begins.
    assert files.steps()[:2] == ["intent", "submitted"]
    assert len(files.attempts()) == 1


@pytest.mark.parametrize(
    "point", ["kill-then-submit", "submit-then-kill", "submit-then-kill-and-say-nothing"]
)
def test_the_kubelet_is_killed_while_sbatch_runs(
    cluster: Cluster, witness: Witness, sbatch: FaultySbatch, point: str
) -> None:
    kubelet = cluster.kubelet_pid()
    sbatch.arm(point)
    cluster.create(counted_pod(witness, point))
    assert sbatch.wait_hit() == f"{point} {kubelet}"
    assert_succeeded(cluster, witness, point)
    # The end is journalled when Slurm has seen it, a moment after the Pod shows it.
    steps = PodFiles.of(cluster, point).steps
    eventually(lambda: steps() == ["intent", "submitted", "ended"], what="the journal's last step")


def test_the_kubelet_is_killed_while_the_job_is_queued(cluster: Cluster, witness: Witness) -> None:
    cluster.create(counted_pod(witness, "queued", annotations={"slurm-job.hpk.io/flags": "--hold"}))
    files = PodFiles.of(cluster, "queued")
    job = files.job_id()
    kubelet = cluster.kubelet_pid()
    signal(cluster, kubelet, "KILL")
    assert files.steps() == ["intent", "submitted"]
    assert files.claims() == []
    wait_other_kubelet(cluster, kubelet)
    cluster.run(["scontrol", "release", str(job)])
    assert_succeeded(cluster, witness, "queued")


def test_the_kubelet_is_killed_when_the_supervisor_has_taken_its_claim(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(
        counted_pod(witness, "claimed", annotations={"slurm-job.hpk.io/flags": "--hold"})
    )
    files = PodFiles.of(cluster, "claimed")
    job = files.job_id()
    with frozen(cluster, cluster.kubelet_pid()) as kill:
        cluster.run(["scontrol", "release", str(job)])
        eventually(files.claims, what="the supervisor's claim")
        kill()
    assert witness.count("claimed") == 0  # it waits for the bundle of a kubelet
    assert_succeeded(cluster, witness, "claimed")


def test_the_kubelet_is_killed_when_the_pod_has_ended_and_nobody_was_told(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(counted_pod(witness, "untold", f"{witness.wait_at_gate('untold')}; exit 3"))
    cluster.wait_phase("untold", "Running")
    files = PodFiles.of(cluster, "untold")
    with frozen(cluster, cluster.kubelet_pid()) as kill:
        witness.open_gate("untold")
        files.wait_record("finished")
        assert files.steps() == ["intent", "submitted"]
        kill()
    found = cluster.wait_phase("untold", "Succeeded", "Failed")
    assert found["status"]["phase"] == "Failed"
    assert terminated(found)["exitCode"] == 3
    assert_ran_once(cluster, witness, "untold")


def test_the_control_plane_is_killed_and_started_again(
    cluster: Cluster, witness: Witness, sbatch: FaultySbatch
) -> None:
    cluster.create(counted_pod(witness, "survivor", witness.wait_at_gate("survivor")))
    cluster.wait_phase("survivor", "Running")
    (supervise,) = processes(cluster, "[b]ootstrap.supervise", host=LOGIN)
    signal(cluster, supervise, "KILL")
    eventually(
        lambda: not processes(cluster, "/etcd |/kube-[a-z-]* |/coredns |[-]m kubelet", host=LOGIN),
        what="every component dies with the supervising process",
    )
    path = cluster.run(["printenv", "PATH"]).stdout.strip()
    cluster.run(["env", f"PATH={sbatch.directory}:{path}", "hpk", "up"], timeout_s=180)
    witness.open_gate("survivor")
    assert_succeeded(cluster, witness, "survivor")


@pytest.mark.parametrize("component", ["etcd", "kube-apiserver"])
def test_a_component_is_killed_and_comes_back(
    cluster: Cluster, witness: Witness, component: str
) -> None:
    cluster.create(counted_pod(witness, component, witness.wait_at_gate(component)))
    cluster.wait_phase(component, "Running")
    (before,) = processes(cluster, f"/{component} ", host=LOGIN)
    signal(cluster, before, "KILL")

    def look() -> bool:
        now = processes(cluster, f"/{component} ", host=LOGIN)
        ready = cluster.run(["kubectl", "get", "--raw", "/readyz"], check=False)
        return bool(now) and now != [before] and ready.stdout == "ok"

    eventually(look, timeout_s=120, what=f"{component} back, the API server ready")
    witness.open_gate(component)
    assert_succeeded(cluster, witness, component)


def test_the_supervisor_of_a_pod_is_killed(cluster: Cluster, witness: Witness) -> None:
    cluster.create(counted_pod(witness, "orphaned", "sleep 1000 & sleep 1000"))
    cluster.wait_phase("orphaned", "Running")
    eventually(lambda: LINES[-1] in cluster.logs("orphaned"), what="its last line")
    node = node_of(cluster, PodFiles.of(cluster, "orphaned").job_id())
    # Its forks carry its name; the first is the supervisor itself.
    signal(cluster, processes(cluster, "[s]upervisor-.*pyz run", host=node)[0], "KILL", host=node)
    found = cluster.wait_phase("orphaned", "Succeeded", "Failed")
    assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "SlurmFailed")
    assert terminated(found)["reason"] == "SlurmFailed"
    assert terminated(found)["finishedAt"]  # Slurm saw when
    assert processes(cluster, ".", host=node) == []
    assert_ran_once(cluster, witness, "orphaned")


def test_a_job_that_breaks_down_before_the_pod_has_begun(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(counted_pod(witness, "late", annotations={"slurm-job.hpk.io/flags": "--hold"}))
    files = PodFiles.of(cluster, "late")
    first = files.job_id()
    (attempt,) = files.attempts()
    # A node that does not see the attempt's directory yet, as NFS may have it.
    cluster.run(["mv", attempt, f"{files.root}/unseen"])
    cluster.run(["scontrol", "release", str(first)])
    eventually(lambda: cluster.accounting(first, "State") == ["FAILED"], what="its end")
    cluster.run(["mv", f"{files.root}/unseen", attempt])
    second = eventually(lambda: next((i for i in cluster.job_ids("late") if i != first), 0))
    cluster.run(["scontrol", "release", str(second)])
    assert cluster.wait_phase("late", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
    assert witness.count("late") == 1
    assert any("nothing of the pod had begun" in e["message"] for e in cluster.events("late"))


@pytest.mark.long
def test_slurmctld_is_killed_and_started_again(
    cluster: Cluster, machine: Machine, witness: Witness
) -> None:
    cluster.create(counted_pod(witness, "slurmctld", witness.wait_at_gate("slurmctld")))
    cluster.wait_phase("slurmctld", "Running")
    # A controller that crashes before it saved its newest state has never heard of the job.
    began = int(cluster.run(["date", "+%s"]).stdout)
    eventually(lambda: saved_at(cluster) > began, what="slurmctld saves its state")
    asyncio.run(control.restart_controller(machine))
    cluster.create(counted_pod(witness, "after"))
    witness.open_gate("slurmctld")
    assert_succeeded(cluster, witness, "slurmctld")
    assert_succeeded(cluster, witness, "after")


def test_a_requeue_by_the_administrator_does_not_run_the_pod_twice(
    cluster: Cluster, witness: Witness
) -> None:
    cluster.create(counted_pod(witness, "again", "sleep 1000"))
    cluster.wait_phase("again", "Running")
    (job,) = cluster.job_ids("again")
    cluster.run(["scontrol", "update", f"JobId={job}", "Requeue=1"], user="root")
    cluster.run(["scontrol", "requeue", str(job)], user="root")
    found = cluster.wait_phase("again", "Succeeded", "Failed")
    assert (found["status"]["phase"], found["status"]["reason"]) == ("Failed", "SlurmRequeued")
    eventually(
        lambda: not cluster.run(["squeue", "-h", "-j", str(job)], check=False).stdout.strip(),
        what="the requeued job to be gone from the queue",
    )
    assert_ran_once(cluster, witness, "again")


def saved_at(cluster: Cluster) -> int:
    """When slurmctld last saved its jobs, in Unix seconds."""
    state = "/var/spool/slurmctld/job_state"
    return int(cluster.run(["stat", "-c", "%Y", state], user="root").stdout)
