"""Probes and lifecycle hooks in real containers, as far as kubectl and Deployments see them.

The Pods of a group are created in one go. Ports are the node's, so each Pod has its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import BUSYBOX, RUNTIME, Cluster, Json, eventually, main_status, pod

USERS: dict[str, Json] = {"root": {}, "another": {"runAsUser": 1234, "runAsGroup": 1234}}
SMALL: Json = {"requests": {"cpu": "100m", "memory": "32Mi"}}
SERVE = "mkdir -p /tmp/w; echo ok > /tmp/w/health; exec httpd -f -p {port} -h /tmp/w"
IDLE = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
NASTY = "a 'b' \"c\" $HOME `x` \\ é"


def conditions(found: Json) -> dict[str, str]:
    return {item["type"]: item["status"] for item in found["status"].get("conditions") or []}


def events(cluster: Cluster, name: str, reason: str) -> list[Json]:
    return [event for event in cluster.events(name) if event["reason"] == reason]


def wait_ready(cluster: Cluster, name: str, *, timeout_s: float = 120) -> Json:
    def ready() -> Json | None:
        found = cluster.get("pod", name)
        return found if conditions(found).get("Ready") == "True" else None

    found = eventually(ready, timeout_s=timeout_s, what=f"{name} is ready")
    assert found is not None
    return found


def home_of(cluster: Cluster) -> str:
    """A directory that Pods and the login node see."""
    return cluster.home(f"probes-{cluster.namespace}")


def web(name: str, port: int, *, wait: str = "true", **more: Json) -> Json:
    """A web server that begins after ``wait``."""
    main: Json = {
        "ports": [{"name": "http", "containerPort": port}],
        "readinessProbe": {"httpGet": {"port": "http", "path": "/health"}, "periodSeconds": 1},
        **more,
    }
    script = f"{wait}; {SERVE.format(port=port)}"
    spec: Json = {"terminationGracePeriodSeconds": 2}
    return pod(
        name, "sh", "-c", script, container=main, resources=SMALL, spec=spec,
        restart_policy="Always",
    )  # fmt: skip


@pytest.fixture(scope="module")
def pods(shared: Cluster) -> Iterator[Cluster]:
    """All Pods that need nothing but time."""
    directory = home_of(shared)
    volume: Json = {"name": "home", "hostPath": {"path": directory, "type": "DirectoryOrCreate"}}
    mount: Json = {"volumeMounts": [{"name": "home", "mountPath": "/home"}]}
    gate = {
        "startupProbe": {
            "tcpSocket": {"port": 18102},
            "periodSeconds": 1,
            "failureThreshold": 60,
        }
    }
    side: Json = {
        "name": "side",
        "image": BUSYBOX,
        "restartPolicy": "Always",
        "command": ["sh", "-c", f"sleep 3; {SERVE.format(port=18102)}"],
        "ports": [{"containerPort": 18102}],
        **gate,
    }
    gated = pod(
        "gated",
        "sh",
        "-c",
        "wget -qO- http://127.0.0.1:18102/health",
        spec={"initContainers": [side], "terminationGracePeriodSeconds": 2},
        resources=SMALL,
    )
    hurt = "touch /tmp/alive; trap 'exit 7' TERM; while :; do sleep 0.2; done"
    alive = {"exec": {"command": ["cat", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 2}
    restarted = pod(
        "restarted",
        "sh",
        "-c",
        f"test -e /data/once || {{ touch /data/once; (sleep 3; rm /tmp/alive) & }}; {hurt}",
        container={
            "livenessProbe": alive,
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        },
        spec={
            "volumes": [{"name": "data", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 5,
        },
        restart_policy="Always",
        resources=SMALL,
    )
    hooked = pod(
        "hooked",
        "sh",
        "-c",
        "trap 'echo term >> /home/told; exit 0' TERM; while :; do sleep 0.2; done",
        container={
            "lifecycle": {
                "postStart": {"exec": {"command": ["sh", "-c", "echo $POD > /home/told"]}},
                "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /home/told"]}},
            },
            "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            **mount,
        },
        spec={"volumes": [volume]},
        resources=SMALL,
    )
    flagged = pod(
        "flagged",
        "sh",
        "-c",
        f"touch /home/flag; {IDLE}",
        container={
            "readinessProbe": {
                "exec": {"command": ["test", "-e", "/home/flag"]},
                "periodSeconds": 1,
                "failureThreshold": 1,
            },
            **mount,
        },
        spec={"volumes": [volume], "terminationGracePeriodSeconds": 2},
        resources=SMALL,
    )
    shared.create(
        web("late", 18101, wait="sleep 4"),
        gated,
        restarted,
        hooked,
        flagged,
        *(probed(runtime, user) for runtime in ("apptainer", "podman") for user in USERS),
    )
    yield shared
    shared.run(["rm", "-rf", directory])


def probed(runtime: str, user: str) -> Json:
    """A Pod whose probe checks who and where it is, and what it was given."""
    uid = USERS[user].get("runAsUser", 0)
    check = f'test "$(id -u)" = {uid} && test "$PWD" = /tmp && test "$WORD" = "$1" && test -e mine'
    main: Json = {
        "workingDir": "/tmp",
        "env": [{"name": "WORD", "value": NASTY}],
        "securityContext": USERS[user],
        "readinessProbe": {
            "exec": {"command": ["sh", "-c", check, "sh", NASTY]},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
        },
    }
    return pod(
        f"exec-{runtime}-{user}",
        "sh",
        "-c",
        f"touch mine; {IDLE}",
        container=main,
        annotations={RUNTIME: runtime},
        spec={"terminationGracePeriodSeconds": 2},
        resources=SMALL,
    )


@pytest.mark.parametrize("runtime", ["apptainer", "podman"])
@pytest.mark.parametrize("user", USERS)
def test_commands_run_as_the_containers_user(pods: Cluster, runtime: str, user: str) -> None:
    wait_ready(pods, f"exec-{runtime}-{user}")


def test_a_pod_is_ready_when_it_answers(pods: Cluster) -> None:
    found = wait_ready(pods, "late")
    assert main_status(found)["started"] is True
    assert conditions(found)["ContainersReady"] == "True"
    address = f"http://{found['status']['podIP']}:18101/health"

    def unhealthy() -> Json | None:
        return next(iter(events(pods, "late", "Unhealthy")), None)

    event = eventually(unhealthy, what="the time before it was ready")
    assert event is not None
    assert event["type"] == "Warning"
    assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert event["message"].startswith(f'Readiness probe failed: Get "{address}": dial tcp')


def test_a_sidecars_startup_probe_gates_the_others(pods: Cluster) -> None:
    found = pods.wait_phase("gated", "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    assert pods.logs("gated", "-c", "main") == "ok\n"


def test_a_failed_liveness_probe_restarts_the_container(pods: Cluster) -> None:
    def restarted() -> Json | None:
        status = (pods.get("pod", "restarted")["status"].get("containerStatuses") or [{}])[0]
        return status if status.get("restartCount") == 1 and status["ready"] else None

    status = eventually(restarted, timeout_s=120, what="a restart")
    assert status is not None
    assert status["lastState"]["terminated"]["exitCode"] == 7
    said = "Container main failed liveness probe, will be restarted"
    eventually(lambda: events(pods, "restarted", "Killing"), what="the Event")
    assert [event["message"] for event in events(pods, "restarted", "Killing")] == [said]
    assert "Liveness probe failed" in events(pods, "restarted", "Unhealthy")[0]["message"]
    assert len(pods.job_ids("restarted")) == 1


def test_hooks(pods: Cluster) -> None:
    wait_ready(pods, "hooked")
    pods.kubectl("delete", "pod", "hooked", "--wait=true")
    assert pods.read(f"{home_of(pods)}/told") == "hooked\npre\nterm\n"


def test_probes_go_on_without_a_kubelet(pods: Cluster) -> None:
    wait_ready(pods, "late")
    before = wait_ready(pods, "flagged")
    pods.run(["kill", "-9", str(pods.kubelet_pid())])
    pods.run(["rm", f"{home_of(pods)}/flag"])

    def unready() -> Json | None:
        found = pods.get("pod", "flagged")
        return found if conditions(found)["Ready"] == "False" else None

    found = eventually(unready, what="what was seen meanwhile")
    assert found is not None
    assert main_status(found)["state"] == main_status(before)["state"]
    assert conditions(found)["ContainersReady"] == "False"
    (event,) = events(pods, "flagged", "Unhealthy")
    assert event["message"] == "Readiness probe failed: "
    assert conditions(pods.get("pod", "late"))["Ready"] == "True"
    pods.run(["touch", f"{home_of(pods)}/flag"])
    wait_ready(pods, "flagged")


def test_a_rolling_update_waits_for_readiness(cluster: Cluster) -> None:
    """The new Pod is not ready before it is told to be; until then the old one serves."""
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [
                        {
                            "name": "main",
                            "image": BUSYBOX,
                            "command": ["sh", "-c", IDLE],
                            "env": [{"name": "VERSION", "value": "1"}],
                            "resources": SMALL,
                            "readinessProbe": {
                                "periodSeconds": 1,
                                "exec": {"command": ["sh", "-c", 'test "$VERSION" = 1 -o -e /go']},
                            },
                        }
                    ],
                },
            },
        },
    }
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    cluster.create(deployment, service)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    (old,) = names(cluster)
    patch = [{"op": "replace", "path": f"{CONTAINER}/env/0/value", "value": "2"}]
    cluster.kubectl("patch", "deployment", "web", "--type=json", f"-p={json.dumps(patch)}")
    eventually(lambda: len(names(cluster)) == 2, what="the new Pod")
    (new,) = set(names(cluster)) - {old}
    eventually(lambda: events(cluster, new, "Unhealthy"), timeout_s=120, what="a failed probe")
    assert conditions(cluster.get("pod", old))["Ready"] == "True"
    assert conditions(cluster.get("pod", new))["Ready"] == "False"
    eventually(lambda: endpoints(cluster) == {old: True, new: False}, what="endpoints")
    patch = [{"op": "remove", "path": f"{CONTAINER}/readinessProbe"}]
    cluster.kubectl("patch", "deployment", "web", "--type=json", f"-p={json.dumps(patch)}")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=180s")
    eventually(lambda: len(names(cluster)) == 1, timeout_s=120, what="only the newest Pod")
    assert not {old, new} & set(names(cluster))


CONTAINER = "/spec/template/spec/containers/0"


def names(cluster: Cluster) -> list[str]:
    return [item["metadata"]["name"] for item in cluster.get("pods", "-l", "app=web")["items"]]


def endpoints(cluster: Cluster) -> dict[str, bool]:
    slices = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
    return {
        item["targetRef"]["name"]: item["conditions"]["ready"]
        for found in slices
        for item in found.get("endpoints") or []
    }


def test_a_stateful_set_gives_its_pods_their_names(cluster: Cluster) -> None:
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"port": 80}]},
    }
    script = f"hostname; hostname -f; cat /etc/hosts; {IDLE}"
    template: Json = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "hostAliases": [{"ip": "10.9.8.7", "hostnames": ["far", "far.away"]}],
            "readinessGates": [{"conditionType": "example.org/gate"}],
            "containers": [
                {
                    "name": "main",
                    "image": BUSYBOX,
                    "command": ["sh", "-c", script],
                    "resources": SMALL,
                }
            ],
        },
    }
    stateful_set: Json = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db",
            "replicas": 1,
            "selector": {"matchLabels": {"app": "db"}},
            "template": template,
        },
    }
    cluster.create(service, stateful_set)

    def waits_for_its_gate() -> Json | None:
        found = cluster.kubectl("get", "pod", "db-0", "-o", "json", check=False).stdout
        status = json.loads(found or "{}").get("status", {})
        by_type = {item["type"]: item for item in status.get("conditions") or []}
        is_waiting = by_type.get("Ready", {}).get("reason") == "ReadinessGatesNotReady"
        return by_type if is_waiting else None

    by_type = eventually(waits_for_its_gate, what="a Pod that is ready but for its gate")
    assert by_type is not None
    assert by_type["ContainersReady"]["status"] == "True"
    assert by_type["Ready"]["message"] == (
        'corresponding condition of pod readiness gate "example.org/gate" does not exist.'
    )
    gate = {"status": {"conditions": [{"type": "example.org/gate", "status": "True"}]}}
    cluster.kubectl("patch", "pod", "db-0", "--subresource=status", f"-p={json.dumps(gate)}")
    found = wait_ready(cluster, "db-0")
    assert conditions(found)["example.org/gate"] == "True"
    full = f"db-0.db.{cluster.namespace}.svc.cluster.local"
    lines = cluster.logs("db-0").splitlines()
    assert lines[:2] == ["db-0", full]
    assert f"{found['status']['podIP']}\t{full}\tdb-0" in lines
    assert lines[-2:] == ["# Entries added by HostAliases.", "10.9.8.7\tfar\tfar.away"]
