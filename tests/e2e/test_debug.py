"""`kubectl debug`: containers that are added to a Pod which runs, or which waits in Slurm."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.cluster import BUSYBOX, FLAGS, Cluster, Json, eventually, pod


def _debugger(cluster: Cluster, name: str) -> Json:
    found = cluster.get("pod", name)["status"].get("ephemeralContainerStatuses") or [{}]
    state: Json = found[0].get("state") or {}
    return state


def _ended(cluster: Cluster, name: str) -> Json:
    eventually(lambda: "terminated" in _debugger(cluster, name), what=f"{name}'s debugger's end")
    ended: Json = _debugger(cluster, name)["terminated"]
    return ended


def test_a_debugger_joins_a_running_pod(shared: Cluster) -> None:
    spec = {"shareProcessNamespace": True, "volumes": [{"name": "v", "emptyDir": {}}]}
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    shared.create(
        pod("runs", "sh", "-c", "echo hello > /v/f; exec sleep 4321", spec=spec, container=mount)
    )
    shared.wait_phase("runs", "Running")
    debugger = {
        "name": "debugger",
        "image": BUSYBOX,
        "command": ["sh", "-c", "cat /v/f; ps; echo $WHERE; exit 7"],
        "env": [{"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
        **mount,
    }
    shared.kubectl(
        *("patch", "pod", "runs", "--subresource=ephemeralcontainers", "--type=strategic"),
        *("--patch", json.dumps({"spec": {"ephemeralContainers": [debugger]}})),
    )
    assert _ended(shared, "runs")["exitCode"] == 7
    said = shared.logs("runs", "-c", "debugger")
    found = shared.get("pod", "runs")
    for part in ("hello", "sleep 4321", found["status"]["hostIP"]):
        assert part in said
    assert found["status"]["phase"] == "Running"
    shared.kubectl("delete", "pod", "runs", "--grace-period=1", "--timeout=60s")


def test_a_debugger_of_a_pod_that_waits_in_slurm_comes_with_it(shared: Cluster) -> None:
    shared.create(pod("waits", "sleep", "100000", annotations={FLAGS: "--begin=now+20"}))

    def is_queued() -> Any:
        (status,) = shared.get("pod", "waits")["status"].get("containerStatuses") or [{}]
        return "Slurm" in (status.get("state", {}).get("waiting") or {}).get("reason", "")

    eventually(is_queued, what="the job in the queue")
    shared.kubectl("debug", "waits", f"--image={BUSYBOX}", "-c", "debugger", "--", "echo", "there")
    assert _ended(shared, "waits")["exitCode"] == 0
    assert shared.logs("waits", "-c", "debugger") == "there\n"
    shared.kubectl("delete", "pod", "waits", "--grace-period=1", "--timeout=60s")


def test_the_deadline_of_a_running_pod_may_be_set(shared: Cluster) -> None:
    shared.create(pod("long", "sleep", "100000"))
    shared.wait_phase("long", "Running")
    patch = json.dumps({"spec": {"activeDeadlineSeconds": 1}})
    shared.kubectl("patch", "pod", "long", "--patch", patch)
    assert shared.wait_phase("long", "Failed")["status"]["reason"] == "DeadlineExceeded"
