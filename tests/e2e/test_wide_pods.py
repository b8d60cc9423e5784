"""Init containers and sidecars in their order, and Secrets that stay off the shared file system."""

from __future__ import annotations

import base64
import hashlib
import secrets

from tests.e2e.cluster import BUSYBOX, Cluster, Json, eventually


def pod(name: str, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, **spec},
    }


def container(name: str, script: str, **more: object) -> Json:
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def secret(name: str, **data: bytes) -> Json:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def test_init_containers_in_order_beside_their_sidecar(cluster: Cluster) -> None:
    share = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    init = [
        container("first", "echo first >> /work/log; echo told by first", **share),
        container(
            "side",
            "echo side >> /work/log; touch /work/up; trap 'exit 0' TERM; while :; do sleep 1; done",
            restartPolicy="Always",
            **share,
        ),
        container(
            "last", "while [ ! -e /work/up ]; do sleep 0.1; done; echo last >> /work/log", **share
        ),
    ]
    containers = [
        container("one", "cat /work/log; touch /work/one", **share),
        container("two", "while [ ! -e /work/one ]; do sleep 0.1; done; echo two", **share),
    ]
    volumes = [{"name": "work", "emptyDir": {}}]
    cluster.create(pod("order", initContainers=init, containers=containers, volumes=volumes))
    found = cluster.wait_phase("order", "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    assert cluster.logs("order", "-c", "one") == "first\nside\nlast\n"
    assert cluster.logs("order", "-c", "two") == "two\n"
    assert cluster.logs("order", "-c", "first") == "told by first\n"
    statuses = found["status"]["initContainerStatuses"]
    assert [s["name"] for s in statuses] == ["first", "side", "last"]
    assert [s["state"]["terminated"]["exitCode"] for s in (statuses[0], statuses[2])] == [0, 0]


def test_an_init_container_that_fails_ends_the_pod(cluster: Cluster) -> None:
    init = [container("first", "echo no >&2; exit 7"), container("second", "true")]
    cluster.create(pod("fails", initContainers=init, containers=[container("main", "true")]))
    status = cluster.wait_phase("fails", "Failed", "Succeeded")["status"]
    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    assert "running" not in status["containerStatuses"][0]["state"]
    (initialized,) = (c for c in status["conditions"] if c["type"] == "Initialized")
    assert initialized["status"] == "False"
    assert cluster.logs("fails", "-c", "first") == "no\n"


def test_no_value_of_a_secret_rests_on_the_shared_file_system(cluster: Cluster) -> None:
    text = f"never-at-rest-{secrets.token_hex(8)}"
    cluster.create(secret("s", k=text.encode()))
    main = container(
        "main",
        'test -n "$k" && echo "$0" | md5sum; sleep 600',
        envFrom=[{"secretRef": {"name": "s"}}],
        args=["$(k)"],
        volumeMounts=[{"name": "s", "mountPath": "/s"}],
    )
    volumes = [{"name": "s", "secret": {"secretName": "s"}}]
    cluster.create(pod("rest", containers=[main], volumes=volumes))
    cluster.wait_phase("rest", "Running")
    told = hashlib.md5(f"{text}\n".encode()).hexdigest()
    eventually(lambda: told in cluster.logs("rest"), what="the Secret's value in the container")
    # Every file of the home, etcd's too, by a pattern that no command line shows.
    command = "grep -rlFf - .hpk; true"
    assert cluster.run(["sh", "-c", command], stdin=text).stdout == ""
    cluster.kubectl("delete", "pod", "rest", "--wait=false")
