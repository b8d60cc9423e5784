"""What must not run is refused with its field, by admission, by the API server or by Slurm.

All Pods of a test are created together and waited for together.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bootstrap.admission_policy import LABEL
from tests.e2e.canary import BYSTANDER, CANARY
from tests.e2e.cluster import BUSYBOX, FLAGS, Cluster, Json, eventually, has_ended, pod
from tests.e2e.refusals import REFUSALS

pytestmark = pytest.mark.usefixtures("others_go_on")


@pytest.fixture(scope="module")
def refused(shared: Cluster) -> dict[str, Json]:
    """All Pods of REFUSALS, as they ended: the kubelet's own admission is asked, for another
    scheduler or an older object may pass the API server's."""
    label = f"{LABEL}=off"
    shared.run(["kubectl", "label", "namespace", shared.namespace, label])
    shared.create(*(refusal.pod for refusal in REFUSALS.values()))
    return shared.wait_pods(REFUSALS)


@pytest.mark.parametrize("name", REFUSALS)
def test_a_pod_is_refused_by_reason_and_field(refused: dict[str, Json], name: str) -> None:
    want, status = REFUSALS[name], refused[name]["status"]
    assert (status["phase"], status["reason"]) == ("Failed", want.reason), status["message"]
    assert status["message"].startswith(want.field), status["message"]
    for words in want.says:
        assert words in status["message"]


def test_what_the_object_alone_tells_is_refused_where_the_user_looks(cluster: Cluster) -> None:
    """By the policy that the control plane brought, in a namespace like any other."""
    template = {
        "metadata": {"labels": {"app": "w"}},
        "spec": {"containers": [{"name": "main", "image": BUSYBOX}], "hostPID": True},
    }
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "w"},
        "spec": {"selector": {"matchLabels": {"app": "w"}}, "template": template},
    }
    done = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made), check=False)
    assert done.returncode != 0
    assert "spec.template.spec.hostPID: is not supported yet" in done.stderr
    cluster.run(["kubectl", "label", "namespace", cluster.namespace, f"{LABEL}=warn"])

    def warned() -> bool:
        dry = ("apply", "--dry-run=server", "-f", "-")
        done = cluster.kubectl(*dry, stdin=json.dumps(made), check=False)
        return done.returncode == 0 and "hostPID: is not supported yet" in done.stderr

    eventually(warned, what="a warning instead")


def test_refused_pods_never_reached_slurm(shared: Cluster, refused: dict[str, Json]) -> None:
    # Accounting may lag behind the queue, which remembers jobs for a minute after their end.
    queued = shared.run(["squeue", "-h", "-a", "-t", "all", "-o", "%j"]).stdout
    known = shared.run(["sacct", "-n", "-X", "-P", "-S", "now-1days", "-o", "JobName"]).stdout
    names = {line.partition("@")[0] for line in (queued + known).splitlines()}
    assert f"{shared.namespace}/{BYSTANDER}" in names
    assert not names & {f"{shared.namespace}/{name}" for name in refused}


def test_a_refusal_is_an_event_and_reads_well(shared: Cluster, refused: dict[str, Json]) -> None:
    def warned() -> list[Json]:
        return [event for event in shared.events("flag-unknown") if event["type"] == "Warning"]

    (event,) = eventually(warned, what="the event of a refusal")
    assert event["reason"] == "InvalidAnnotation"
    assert event["message"] == refused["flag-unknown"]["status"]["message"]
    listed = shared.kubectl("get", "pod", "flag-unknown", "--no-headers").stdout.split()
    assert listed[:3] == ["flag-unknown", "0/1", "InvalidAnnotation"]
    described = shared.kubectl("describe", "pod", "flag-unknown").stdout
    assert "unknown sbatch option --no-such-flag" in described


def test_what_the_api_server_refuses_never_becomes_a_pod(shared: Cluster) -> None:
    """Names cannot be nasty: upstream's own validation says so, and names the field."""
    label = pod("bad-label", "true")
    label["metadata"]["labels"] = {"note": f"$(touch {CANARY})\n"}
    for made, path in (
        (pod("bad$(canary)", "true"), "metadata.name"),
        (pod("bad-container", "true", container={"name": "a b;c"}), "spec.containers[0].name"),
        (label, "metadata.labels"),
        (pod("bad-image", "true", image=" x"), "spec.containers[0].image"),
        (pod("bad-env", "true", container={"env": [{"name": "é=", "value": ""}]}), "env[0].name"),
        (
            pod("bad-negative", "true", resources={"requests": {"cpu": "-1"}}),
            "spec.containers[0].resources.requests[cpu]",
        ),
    ):
        done = shared.kubectl("create", "-f", "-", stdin=json.dumps(made), check=False)
        assert done.returncode != 0
        assert path in done.stderr, done.stderr


SLURM_REFUSALS = {
    "--account=nobody": ("SlurmInvalidAccount", "Invalid account"),
    "--qos=nothing": ("SlurmInvalidQos", "Invalid qos"),
    "--constraint=nowhere": ("SlurmInvalidConstraint", "Invalid feature specification"),
    "--reservation=never": ("SlurmInvalidReservation", "reservation"),
    "--licenses=nobody:1": ("SlurmInvalidLicenses", "Invalid license specification"),
    "--nodelist=nowhere": ("SlurmInvalidNodelist", "Invalid node name specified"),
}


def test_what_slurm_itself_refuses_fails_with_slurms_words(shared: Cluster) -> None:
    names = {f"slurm-{index}": flags for index, flags in enumerate(SLURM_REFUSALS)}
    shared.create(*(pod(n, "true", annotations={FLAGS: flags}) for n, flags in names.items()))
    found = shared.wait_pods(names)
    told = {
        flags: (found[name]["status"].get("reason"), found[name]["status"].get("message", ""))
        for name, flags in names.items()
    }
    assert {flags: reason for flags, (reason, _) in told.items()} == {
        flags: reason for flags, (reason, _) in SLURM_REFUSALS.items()
    }, told
    for flags, (_, words) in SLURM_REFUSALS.items():
        assert words in told[flags][1]
    assert {item["status"]["phase"] for item in found.values()} == {"Failed"}


def test_a_debugger_is_refused_and_its_pod_goes_on(shared: Cluster) -> None:
    shared.create(pod("debugged", "sleep", "100000"))
    shared.wait_phase("debugged", "Running")
    probe = {
        "name": "probe",
        "image": BUSYBOX,
        "command": ["touch", CANARY],
        "securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x.json"}},
    }
    shared.kubectl(
        *("patch", "pod", "debugged", "--subresource=ephemeralcontainers", "--type=strategic"),
        *("--patch", json.dumps({"spec": {"ephemeralContainers": [probe]}})),
    )

    def refused() -> Any:
        found = shared.get("pod", "debugged")["status"].get("ephemeralContainerStatuses")
        return found[0]["state"].get("terminated") if found else None

    terminated = eventually(refused, what="the debugger's status")
    assert terminated["reason"] == "UnsupportedField"
    path = "spec.ephemeralContainers[0].securityContext.seccompProfile"
    assert terminated["message"].startswith(path)
    assert shared.get("pod", "debugged")["status"]["phase"] == "Running"
    shared.kubectl("delete", "pod", "debugged", "--grace-period=1", "--timeout=60s")


def test_a_container_that_would_be_root_waits_as_upstream(shared: Cluster) -> None:
    own = {"securityContext": {"runAsNonRoot": True}}
    shared.create(pod("non-root", "touch", CANARY, container=own))

    def waiting() -> Any:
        (status,) = shared.get("pod", "non-root")["status"].get("containerStatuses") or [{}]
        found = (status.get("state") or {}).get("waiting") or {}
        return found if found.get("reason") == "CreateContainerConfigError" else None

    message = eventually(waiting, what="the container's reason")["message"]
    assert "container has runAsNonRoot and image will run as root" in message
    assert shared.get("pod", "non-root")["status"]["phase"] == "Pending"
    shared.kubectl("delete", "pod", "non-root", "--grace-period=0", "--force")


def test_a_pod_created_after_all_this_runs(shared: Cluster, refused: dict[str, Json]) -> None:
    assert all(has_ended(found) for found in refused.values())
    shared.create(pod("after", "echo", "still here"))
    assert shared.wait_phase("after", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
