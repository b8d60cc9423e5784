"""However a pod ends, nothing of it is left on its node, and the pod beside it goes on unharmed.

Looked at from outside, as the node's administrator (leftovers.py).
"""

from __future__ import annotations

import operator

import pytest

from tests.e2e.cluster import Cluster, Json, eventually, has_ended, pod, terminated
from tests.e2e.faults import PodFiles, processes, signal
from tests.e2e.leftovers import Leftovers, drained

NODES = {"apptainer": "n2", "podman": "n3"}
VOLUMES = ("disk", "memory", "secret")
MESS = (
    "mkfifo /tmp/p; for d in /tmp /dev/shm /disk /memory; do echo x > $d/f; done; "
    "(setsid sleep 1000 &); (sleep 1000 < /tmp/p &); echo up; "
)
NEIGHBOUR = (
    "whole() { cat /tmp/f /dev/shm/f /disk/f /memory/f /secret/k; }; "
    "trap 'whole; exit 7' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.5; done"
)
STUBBORN = "trap '' TERM; while :; do sleep 1; done"
POLITE = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
KILLED = "sleep 4712"
ENDINGS: dict[str, tuple[str, Json, str]] = {
    "timeout": (STUBBORN, {}, "--time=1"),
    "supervisor-killed": (STUBBORN, {}, ""),
    "normal": ("exit 0", {}, ""),
    "payload-killed": (f"exec {KILLED}", {}, ""),
    "oom": ("x=aaaaaaaa; while :; do x=$x$x; done", {}, ""),
    "late": (POLITE, {"activeDeadlineSeconds": 2}, ""),
    "scancelled": (STUBBORN, {}, ""),
    "deleted": (POLITE, {}, ""),
}
"""What a pod does, more of its spec, and its Slurm options, by how it ends."""
ASKED = ("supervisor-killed", "payload-killed", "scancelled", "deleted")
"""Those that somebody has to end."""


def messy(name: str, runtime: str, script: str, spec: Json, flags: str) -> Json:
    """A Pod that leaves something in every place where it can."""
    volumes: list[Json] = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "secret", "secret": {"secretName": "s"}},
    ]
    return pod(
        f"{runtime}-{name}",
        *("sh", "-c", MESS + script),
        annotations={
            "slurm-job.hpk.io/runtime": runtime,
            "slurm-job.hpk.io/flags": f"--nodelist={NODES[runtime]} {flags}",
        },
        resources={"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi"}},
        container={"volumeMounts": [{"name": n, "mountPath": f"/{n}"} for n in VOLUMES]},
        spec={"volumes": volumes, "terminationGracePeriodSeconds": 1, **spec},
    )


@pytest.fixture(scope="module")
def started(shared: Cluster) -> dict[str, Leftovers]:
    """All pods, each runtime's on a node of its own, and what was there before."""
    before = {runtime: Leftovers.since_now(shared, node) for runtime, node in NODES.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    shared.create({**secret, "stringData": {"k": "kept"}})
    neighbours = [messy("neighbour", runtime, NEIGHBOUR, {}, "") for runtime in NODES]
    shared.create(*neighbours)
    names = [item["metadata"]["name"] for item in neighbours]
    shared.wait_pods(names, lambda found: found["status"].get("phase") == "Running")
    shared.create(
        *(messy(name, runtime, *ending) for name, ending in ENDINGS.items() for runtime in NODES)
    )
    return before


def end(cluster: Cluster, name: str, ending: str, node: str) -> None:
    """End a pod that runs."""
    files = PodFiles.of(cluster, name)
    if ending == "supervisor-killed":
        (attempt,) = files.attempts()
        # Its forks carry its name; the first is the supervisor itself.
        first = processes(cluster, f"attempt-dir {attempt}", host=node)[0]
        signal(cluster, first, "KILL", host=node)
    elif ending == "payload-killed":
        (payload,) = processes(cluster, f"^{KILLED}$", host=node)
        signal(cluster, payload, "KILL", host=node)
    elif ending == "scancelled":
        cluster.run(["scancel", str(files.job_id())])
    else:
        cluster.kubectl("delete", "pod", name, "--wait=true")


@pytest.mark.parametrize("runtime", NODES)
def test_no_ending_leaves_anything_or_harms_the_pod_beside_it(
    shared: Cluster, started: dict[str, Leftovers], runtime: str
) -> None:
    node, leftovers = NODES[runtime], started[runtime]
    neighbour = f"{runtime}-neighbour"
    beside = PodFiles.of(shared, neighbour).job_id()
    jobs = {}
    for ending in (*ASKED, *(name for name in ENDINGS if name not in ASKED)):
        name = f"{runtime}-{ending}"
        jobs[ending] = PodFiles.of(shared, name).job_id()
        if ending in ASKED:
            shared.wait_phase(name, "Running", timeout_s=240)
            eventually(lambda name=name: "up" in shared.logs(name), what=f"{name} to be up")  # type: ignore[misc]
            assert leftovers.of(jobs[ending], node)  # it can be seen at all
            end(shared, name, ending, node)
        if ending != "deleted":
            shared.wait_pods([name], has_ended)
        files = ending != "supervisor-killed"  # nobody is left to remove those: a next job does
        leftovers.wait_none_of(jobs[ending], node, files=files)
    assert shared.get("pod", f"{runtime}-timeout")["status"]["reason"] == "SlurmTimeout"
    assert terminated(shared.get("pod", f"{runtime}-oom"))["reason"] == "OOMKilled"
    killed = terminated(shared.get("pod", f"{runtime}-payload-killed"))
    assert (killed["exitCode"], killed["signal"]) == (137, 9)
    eventually(
        lambda: leftovers.but_of(beside, node),
        until=operator.not_,
        what="only the pod beside them is left",
    )

    (status,) = shared.get("pod", neighbour)["status"]["containerStatuses"]
    assert ("running" in status["state"], status["restartCount"]) == (True, 0)
    count = len(shared.logs(neighbour).splitlines())
    eventually(lambda: len(shared.logs(neighbour).splitlines()) > count, what="it goes on")
    shared.run(["scancel", str(beside)])
    assert terminated(shared.wait_phase(neighbour, "Failed"))["exitCode"] == 7
    assert shared.logs(neighbour).splitlines()[-5:] == ["x", "x", "x", "x", "kept"]
    leftovers.wait_none()
    assert drained(shared) == ""
