"""Variables, files, init containers and sidecars, read inside real containers.

Whatever a Pod reads comes from ConfigMaps and Secrets with text that would break a shell, and each
is read as uid 0 and as another uid.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets

import pytest

from tests.e2e.cluster import BUSYBOX, Cluster, Json, eventually

NASTY = "a 'b' \"c\" $(touch canary) `x` $HOME \\ * \n#SBATCH --uid=0\té 中 \x1b[0m end"
BYTES = bytes(range(256))
SECRET = "never-at-rest-9c1f7e"
SHOW = "while [ $# -gt 0 ]; do printf '%s=[' $1; eval 'printf %s \"$'$1'\"'; echo ]; shift; done"
USERS = [{}, {"runAsUser": 1234, "runAsGroup": 1234}]


def pod(name: str, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "wide"}, "annotations": {"note": NASTY}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, **spec},
    }


def container(name: str, script: str, **more: object) -> Json:
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: bytes) -> Json:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


@pytest.fixture(scope="module")
def objects(shared: Cluster) -> Cluster:
    shared.create(
        config_map("c", plain="one", nasty=NASTY),
        secret("s", nasty=NASTY.encode(), mark=SECRET.encode()),
        secret("b", raw=BYTES),
    )
    return shared


@pytest.mark.parametrize("user", USERS, ids=["root", "another"])
def test_each_source_of_variables(objects: Cluster, user: Json) -> None:
    name = f"env-{len(user)}"
    names = "P_plain nasty mark ONE KEY NODE_IP LABEL NOTE POD MIB BOTH"
    env = [
        {"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "plain"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "nasty"}}},
        {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {
            "name": "MIB",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
        },
        {"name": "BOTH", "value": "$(P_plain)-$(ONE)-$(KEY)"},
    ]
    main = container(
        "main",
        SHOW,
        args=["sh", *names.split()],
        env=env,
        envFrom=[
            {"prefix": "P_", "configMapRef": {"name": "c"}},
            {"secretRef": {"name": "s"}},
            {"secretRef": {"name": "no", "optional": True}},
        ],
        resources={"limits": {"memory": "200Mi"}},
    )
    objects.create(pod(name, containers=[main], securityContext=user))
    found = objects.wait_phase(name, "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    values = {
        "P_plain": "one",
        "nasty": NASTY,
        "mark": SECRET,
        "ONE": "one",
        "KEY": NASTY,
        "NODE_IP": found["status"]["hostIP"],
        "LABEL": "wide",
        "NOTE": NASTY,
        "POD": name,
        "MIB": "200",
        "BOTH": f"one-one-{NASTY}",
    }
    expected = "".join(f"{key}=[{values[key]}]\n" for key in names.split())
    assert objects.logs(name) == expected


@pytest.mark.parametrize("user", USERS, ids=["root", "another"])
def test_each_kind_of_file(objects: Cluster, user: Json) -> None:
    name = f"files-{len(user)}"
    script = (
        "cat /c/nasty; echo; od -An -v -tx1 /s/raw | tr -d ' \\n'; echo; cat /d/labels; echo;"
        " cat /p/sub/mark; echo; stat -L -c %a /c/nasty /s/raw; cut -c1-3 /p/token;"
        " (echo x > /c/nasty) 2>/dev/null || echo read-only; id -u"
    )
    mounts = [{"name": item, "mountPath": f"/{item}"} for item in "csdp"]
    volumes = [
        {"name": "c", "configMap": {"name": "c", "defaultMode": 0o444}},
        {
            "name": "s",
            "secret": {"secretName": "b", "items": [{"key": "raw", "path": "raw", "mode": 0o400}]},
        },
        {
            "name": "d",
            "downwardAPI": {
                "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
            },
        },
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"secret": {"name": "s", "items": [{"key": "mark", "path": "sub/mark"}]}},
                    {"serviceAccountToken": {"path": "token"}},
                ]
            },
        },
    ]
    main = container("main", script, volumeMounts=mounts)
    objects.create(pod(name, containers=[main], volumes=volumes, securityContext=user))
    found = objects.wait_phase(name, "Succeeded", "Failed")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    assert objects.logs(name) == (
        f'{NASTY}\n{BYTES.hex()}\napp="wide"\n{SECRET}\n444\n400\neyJ\nread-only\n'
        f"{user.get('runAsUser', 0)}\n"
    )


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


def test_a_missing_reference_is_waited_for(cluster: Cluster) -> None:
    source = {"configMapKeyRef": {"name": "later", "key": "k"}}
    main = container("main", 'echo "$V"', env=[{"name": "V", "valueFrom": source}])
    cluster.create(pod("waits", containers=[main]))

    def reason() -> Json | None:
        (status,) = cluster.get("pod", "waits")["status"].get("containerStatuses") or [{}]
        waiting: Json = (status.get("state") or {}).get("waiting") or {}
        return waiting if waiting.get("reason") == "CreateContainerConfigError" else None

    waiting = eventually(reason, timeout_s=120, what="the missing ConfigMap's reason")
    assert waiting is not None
    assert waiting["message"] == 'configmap "later" not found'
    cluster.create(config_map("later", other="x"))
    eventually(
        lambda: (
            (reason() or {}).get("message")
            == f"couldn't find key k in ConfigMap {cluster.namespace}/later"
        ),
        what="the missing key's message",
    )
    cluster.kubectl("patch", "configmap", "later", "-p", json.dumps({"data": {"k": NASTY}}))
    assert cluster.wait_phase("waits", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
    assert cluster.logs("waits") == NASTY + "\n"
    messages = [(e["reason"], e["message"]) for e in cluster.events("waits")]
    assert ("Failed", 'Error: configmap "later" not found') in messages


def test_a_missing_volume_is_waited_for(cluster: Cluster) -> None:
    main = container("main", "cat /s/k", volumeMounts=[{"name": "v", "mountPath": "/s"}])
    volumes = [{"name": "v", "secret": {"secretName": "later"}}]
    cluster.create(pod("waits", containers=[main], volumes=volumes))
    wanted = 'MountVolume.SetUp failed for volume "v" : secret "later" not found'
    eventually(
        lambda: (
            ("FailedMount", wanted)
            in [(e["reason"], e["message"]) for e in cluster.events("waits")]
        ),
        timeout_s=120,
        what="the event of the missing Secret",
    )
    cluster.create(secret("later", k=b"here"))
    assert cluster.wait_phase("waits", "Succeeded", "Failed")["status"]["phase"] == "Succeeded"
    assert cluster.logs("waits") == "here"


def test_a_volume_follows_its_sources(cluster: Cluster) -> None:
    script = (
        "while ! grep -q new /d/labels; do sleep 0.2; done; echo label;"
        " while ! grep -q new /c/k; do sleep 0.2; done; echo config"
    )
    mounts = [{"name": item, "mountPath": f"/{item}"} for item in "cd"]
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    volumes = [
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "d", "downwardAPI": {"items": items}},
    ]
    cluster.create(config_map("c", k="old"))
    main = container("main", script, volumeMounts=mounts)
    cluster.create(pod("follows", containers=[main], volumes=volumes))
    cluster.wait_phase("follows", "Running")
    cluster.kubectl("label", "pod", "follows", "state=new")
    eventually(lambda: cluster.logs("follows") == "label\n", what="the new label in the volume")
    cluster.kubectl("patch", "configmap", "c", "-p", '{"data":{"k":"new"}}')
    cluster.wait_phase("follows", "Succeeded", timeout_s=180)


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
    # Every file of the home but the store's own, by a pattern that no command line shows.
    command = "grep -rlFf - .hpk --exclude-dir=etcd; true"
    assert cluster.run(["sh", "-c", command], stdin=text).stdout == ""
    cluster.kubectl("delete", "pod", "rest", "--wait=false")
