"""Each source of variables and each kind of projected file, read inside the container.

With both runtimes, as uid 0 and as another uid, nasty text through each; how they follow what they
show, and how they wait for what is missing. One Pod for each runtime and user reads them all.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e import nasty
from tests.e2e.cluster import BUSYBOX, Cluster, Json, eventually

EACH = [(runtime, user) for runtime in ("apptainer", "podman") for user in (0, 1234)]
ENV_BYTES = bytes(range(1, 256))
"""All that a variable can hold."""
ODD_NAME = "odd name.$(x)'\""
LABEL = "wide"

READ = """
base64 -w0 < /proc/$$$$/environ; echo
echo written > /expanded/f
for path; do
    if [ -e "$path" ]; then
        stat -L -c %a:%u "$path" | tr '\\n' ' '
        base64 -w0 < "$path"
        (echo x >> "$path") 2>/dev/null && printf ' writable'
    else
        printf absent
    fi
    echo
done
"""


def pod(name: str, containers: list[Json], **spec: Any) -> Json:
    annotations = {"note": nasty.TEXT, **spec.pop("annotations", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": LABEL}, "annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": containers,
            **spec,
        },
    }


def as_user(name: str, runtime: str, user: int, containers: list[Json], **spec: Any) -> Json:
    security = {"runAsUser": user, "runAsGroup": user}
    annotations = {"slurm-job.hpk.io/runtime": runtime}
    return pod(name, containers, annotations=annotations, securityContext=security, **spec)


def container(script: str, **more: Any) -> Json:
    return {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def config_map(name: str, data: Json, binary: Json | None = None) -> Json:
    made: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    return {**made, "data": data, "binaryData": binary or {}}


def secret(name: str, data: dict[str, bytes]) -> Json:
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


def value_from(kind: str, **source: Any) -> Json:
    return {"valueFrom": {kind: source}}


def field(path: str) -> Json:
    return value_from("fieldRef", fieldPath=path)


def resource(name: str, divisor: str) -> Json:
    return value_from("resourceFieldRef", resource=name, divisor=divisor)


VARIABLES: dict[str, Json] = {
    "PLAIN": {"value": nasty.TEXT},
    "EMPTY": {"value": ""},
    ODD_NAME: {"value": "odd"},
    "PATH_PART": {"value": nasty.PATH.replace("$", "$$")},
    "POD": field("metadata.name"),
    "NAMESPACE": field("metadata.namespace"),
    "POD_UID": field("metadata.uid"),
    "LABEL": field("metadata.labels['app']"),
    "NOTE": field("metadata.annotations['note']"),
    "NODE": field("spec.nodeName"),
    "ACCOUNT": field("spec.serviceAccountName"),
    "HOST_IP": field("status.hostIP"),
    "HOST_IPS": field("status.hostIPs"),
    "POD_IP": field("status.podIP"),
    "POD_IPS": field("status.podIPs"),
    "CPU_LIMIT": resource("limits.cpu", "1"),
    "CPU_REQUEST": resource("requests.cpu", "1m"),
    "MEMORY_LIMIT": resource("limits.memory", "1Mi"),
    "MEMORY_REQUEST": resource("requests.memory", "1Ki"),
    "CONFIG": value_from("configMapKeyRef", name="c", key="nasty"),
    "SECRET": value_from("secretKeyRef", name="s", key="nasty"),
    "RAW": value_from("secretKeyRef", name="s", key="bytes"),
    "NO_CONFIG": value_from("configMapKeyRef", name="no", key="k", optional=True),
    "NO_SECRET": value_from("secretKeyRef", name="no", key="k", optional=True),
    "NO_KEY": value_from("secretKeyRef", name="s", key="no", optional=True),
    "ALL": {"value": "$(P_plain) $(mark) $(CONFIG) $(SECRET) $(POD) $(NOPE) $$(CONFIG)"},
}
FROM: list[Json] = [
    {"prefix": "P_", "configMapRef": {"name": "c"}},
    {"prefix": "NO_", "configMapRef": {"name": "no", "optional": True}},
    {"secretRef": {"name": "e"}},
    {"secretRef": {"name": "no", "optional": True}},
]


def variables(found: Json) -> dict[str, bytes | None]:
    """What they must be in a Pod that ended; None for what must not be there."""
    metadata, spec, status = found["metadata"], found["spec"], found["status"]
    name = metadata["name"]
    text: dict[str, str] = {
        "PLAIN": nasty.TEXT,
        "EMPTY": "",
        ODD_NAME: "odd",
        "PATH_PART": nasty.PATH,
        "POD": name,
        "NAMESPACE": metadata["namespace"],
        "POD_UID": metadata["uid"],
        "LABEL": LABEL,
        "NOTE": nasty.TEXT,
        "NODE": spec["nodeName"],
        "ACCOUNT": "default",
        "HOST_IP": status["hostIP"],
        "HOST_IPS": ",".join(each["ip"] for each in status["hostIPs"]),
        "POD_IP": status["podIP"],
        "POD_IPS": ",".join(each["ip"] for each in status["podIPs"]),
        "CPU_LIMIT": "1",
        "CPU_REQUEST": "500",
        "MEMORY_LIMIT": "200",
        "MEMORY_REQUEST": "102400",
        "CONFIG": nasty.TEXT,
        "SECRET": nasty.TEXT,
        "ALL": f"one here {nasty.TEXT} {nasty.TEXT} {name} $(NOPE) $(CONFIG)",
        "P_plain": "one",
        "P_nasty": nasty.TEXT,
        "mark": "here",
    }
    absent = dict.fromkeys(("NO_CONFIG", "NO_SECRET", "NO_KEY"))
    return {key: value.encode() for key, value in text.items()} | {"RAW": ENV_BYTES} | absent


ITEM = {"key": "nasty", "path": nasty.PATH, "mode": 0o400}
DEEP = {"key": "plain", "path": "sub/dir/plain"}
DOWNWARD: list[Json] = [
    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
    {"path": f"notes/{nasty.PATH}", "fieldRef": {"fieldPath": "metadata.annotations['note']"}},
    {"path": "name", "mode": 0o400, "fieldRef": {"fieldPath": "metadata.name"}},
    {"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}},
    {
        "path": "memory",
        "resourceFieldRef": {
            "containerName": "main",
            "resource": "limits.memory",
            "divisor": "1Mi",
        },
    },
    {
        "path": "cpu",
        "resourceFieldRef": {
            "containerName": "main",
            "resource": "requests.cpu",
            "divisor": "1m",
        },
    },
]
PROJECTED: list[Json] = [
    {"configMap": {"name": "c", "items": [{"key": "nasty", "path": "config/nasty"}]}},
    {"configMap": {"name": "no", "optional": True}},
    {"secret": {"name": "s", "items": [{"key": "raw", "path": "secret/raw", "mode": 0o400}]}},
    {"secret": {"name": "no", "optional": True}},
    {"downwardAPI": {"items": [DOWNWARD[0]]}},
    {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}},
]
VOLUMES: dict[str, Json] = {
    "c": {"configMap": {"name": "c"}},
    "ci": {"configMap": {"name": "c", "defaultMode": 0o440, "items": [ITEM, DEEP]}},
    "co": {"configMap": {"name": "no", "optional": True}},
    "s": {"secret": {"secretName": "s", "defaultMode": 0o400}},
    "si": {"secret": {"secretName": "s", "items": [ITEM]}},
    "so": {"secret": {"secretName": "no", "optional": True}},
    "d": {"downwardAPI": {"items": DOWNWARD}},
    "p": {"projected": {"defaultMode": 0o440, "sources": PROJECTED}},
    "e": {"emptyDir": {}},
}
MOUNTS: list[Json] = [
    *({"name": name, "mountPath": f"/{name}"} for name in VOLUMES),
    {"name": "c", "mountPath": "/etc/app.conf", "subPath": "nasty"},
    {"name": "si", "mountPath": "/etc/with space", "subPath": nasty.PATH},
    {"name": "e", "mountPath": "/expanded", "subPathExpr": "$(POD)/$(PATH_PART)"},
]


def files(name: str, uid: str) -> dict[str, tuple[str, bytes] | None]:
    """Mode and contents of each; None for what must not be there."""
    text = nasty.TEXT.encode()
    return {
        "/c/plain": ("644", b"one"),
        "/c/nasty": ("644", text),
        "/c/raw": ("644", nasty.BYTES),
        f"/ci/{nasty.PATH}": ("400", text),
        "/ci/sub/dir/plain": ("440", b"one"),
        "/ci/nasty": None,
        "/co/k": None,
        "/s/nasty": ("400", text),
        "/s/raw": ("400", nasty.BYTES),
        f"/si/{nasty.PATH}": ("400", text),
        "/si/raw": None,
        "/so/k": None,
        "/d/labels": ("644", f'app="{LABEL}"'.encode()),
        f"/d/notes/{nasty.PATH}": ("644", text),
        "/d/name": ("400", name.encode()),
        "/d/uid": ("644", uid.encode()),
        "/d/memory": ("644", b"200"),
        "/d/cpu": ("644", b"500"),
        "/p/config/nasty": ("440", text),
        "/p/secret/raw": ("400", nasty.BYTES),
        "/p/labels": ("440", f'app="{LABEL}"'.encode()),
        "/etc/app.conf": ("644", text),
        "/etc/with space": ("400", text),
    }


TOKEN = "/p/token"
EXPANDED = f"/e/$(POD)/{nasty.PATH}/f"


def reader(runtime: str, user: int) -> Json:
    """A Pod that shows everything."""
    main = container(
        READ,
        args=["sh", *files("", ""), TOKEN, EXPANDED],
        env=[{"name": name, **source} for name, source in VARIABLES.items()],
        envFrom=FROM,
        resources={
            "limits": {"memory": "200Mi", "cpu": "1"},
            "requests": {"memory": "100Mi", "cpu": "500m"},
        },
        volumeMounts=MOUNTS,
    )
    volumes = [{"name": name, **source} for name, source in VOLUMES.items()]
    return as_user(f"reads-{runtime}-{user}", runtime, user, [main], volumes=volumes)


FOLLOW = """
await() { while ! grep -q new "$1"; do sleep 0.3; done; echo "$1"; }
await /d/labels; await /p/labels; await /c/k; await /s/k; await /p/c; await /p/s
cat /fixed
"""


def follower(runtime: str, user: int) -> Json:
    """A Pod that ends when everything it is shown has changed."""
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources: list[Json] = [
        {"downwardAPI": {"items": [labels]}},
        {"configMap": {"name": "live", "items": [{"key": "k", "path": "c"}]}},
        {"secret": {"name": "live", "items": [{"key": "k", "path": "s"}]}},
    ]
    volumes: list[Json] = [
        {"name": "d", "downwardAPI": {"items": [labels]}},
        {"name": "c", "configMap": {"name": "live"}},
        {"name": "s", "secret": {"secretName": "live"}},
        {"name": "p", "projected": {"sources": sources}},
    ]
    mounts: list[Json] = [{"name": name, "mountPath": f"/{name}"} for name in "dcsp"]
    mounts.append({"name": "c", "mountPath": "/fixed", "subPath": "k"})
    main = container(FOLLOW, volumeMounts=mounts)
    return as_user(f"follows-{runtime}-{user}", runtime, user, [main], volumes=volumes)


@dataclass(frozen=True)
class Waiting:
    """What a Pod refers to and cannot have yet.

    :param says: the message that tells; ``{ns}`` is the namespace.
    """

    says: str
    container: Json
    volume: Json | None = None

    def pod(self, name: str) -> Json:
        if self.volume is None:
            return pod(name, [container('printf %s "$k"', **self.container)])
        mounts = [{"name": "v", "mountPath": "/v"}]
        volumes = [{"name": "v", **self.volume}]
        return pod(name, [container("cat /v/k", volumeMounts=mounts)], volumes=volumes)


def wants(kind: str, name: str, says: str) -> Waiting:
    env = [{"name": "k", **value_from(kind, name=name, key="k")}]
    return Waiting(says, {"env": env})


def wants_all(kind: str, says: str) -> Waiting:
    return Waiting(says, {"envFrom": [{kind: {"name": "later"}}]})


def shows(says: str, **volume: Any) -> Waiting:
    return Waiting(f'MountVolume.SetUp failed for volume "v" : {says}', {}, volume)


K = [{"key": "k", "path": "k"}]
WAITING: dict[str, Waiting] = {
    "config": wants("configMapKeyRef", "later", 'configmap "later" not found'),
    "secret": wants("secretKeyRef", "later", 'secret "later" not found'),
    "config-key": wants(
        "configMapKeyRef", "partial", "couldn't find key k in ConfigMap {ns}/partial"
    ),
    "secret-key": wants("secretKeyRef", "partial", "couldn't find key k in Secret {ns}/partial"),
    "from-config": wants_all("configMapRef", 'configmap "later" not found'),
    "from-secret": wants_all("secretRef", 'secret "later" not found'),
    "shows-config": shows('configmap "later" not found', configMap={"name": "later"}),
    "shows-secret": shows('secret "later" not found', secret={"secretName": "later"}),
    "shows-config-key": shows(
        "configmap references non-existent config key: k",
        configMap={"name": "partial", "items": K},
    ),
    "shows-secret-key": shows(
        "references non-existent secret key: k",
        secret={"secretName": "partial", "items": K},
    ),
    "shows-projected": shows(
        'configmap "later" not found', projected={"sources": [{"configMap": {"name": "later"}}]}
    ),
}


@pytest.fixture(scope="module")
def started(shared: Cluster) -> Cluster:
    """Every Pod of this module."""
    raw = base64.b64encode(nasty.BYTES).decode()
    text = nasty.TEXT.encode()
    shared.create(
        config_map("c", {"plain": "one", "nasty": nasty.TEXT}, {"raw": raw}),
        secret("s", {"nasty": text, "raw": nasty.BYTES, "bytes": ENV_BYTES}),
        secret("e", {"mark": b"here"}),
        config_map("live", {"k": "old"}),
        secret("live", {"k": b"old"}),
        config_map("partial", {"other": "x"}),
        secret("partial", {"other": b"x"}),
        *(reader(*each) for each in EACH),
        *(follower(*each) for each in EACH),
        *(waiting.pod(name) for name, waiting in WAITING.items()),
    )
    return shared


@pytest.fixture(scope="module")
def read(started: Cluster) -> dict[str, Json]:
    """The readers, ended."""
    return started.wait_pods([f"reads-{runtime}-{user}" for runtime, user in EACH])


def told(cluster: Cluster, found: Json) -> list[str]:
    assert found["status"]["phase"] == "Succeeded", found["status"]
    return cluster.logs(found["metadata"]["name"]).splitlines()


@pytest.mark.parametrize(("runtime", "user"), EACH)
def test_each_source_of_variables(
    started: Cluster, read: dict[str, Json], runtime: str, user: int
) -> None:
    found = read[f"reads-{runtime}-{user}"]
    environ = base64.b64decode(told(started, found)[0]).rstrip(b"\0").split(b"\0")
    seen = dict(entry.split(b"=", 1) for entry in environ)
    wanted = variables(found)
    assert {name: seen.get(name.encode()) for name in wanted} == wanted


@pytest.mark.parametrize(("runtime", "user"), EACH)
def test_each_kind_of_file(
    started: Cluster, read: dict[str, Json], runtime: str, user: int
) -> None:
    found = read[f"reads-{runtime}-{user}"]
    wanted = files(found["metadata"]["name"], found["metadata"]["uid"])
    *lines, token, expanded = told(started, found)[1:]
    seen = {}
    for path, line in zip(wanted, lines, strict=True):
        mode, _, text = line.partition(" ")
        seen[path] = None if line == "absent" else (mode, text)
    assert seen == {
        path: each and (f"{each[0]}:{user}", base64.b64encode(each[1]).decode())
        for path, each in wanted.items()
    }
    mode, _, text = token.partition(" ")
    assert mode in (f"440:{user}", f"600:{user}")
    claims = base64.b64decode(text).split(b".")[1]
    assert b'"aud":["somebody"]' in base64.urlsafe_b64decode(claims + b"==")
    written = base64.b64encode(b"written\n").decode()
    assert expanded == f"644:{user} {written} writable"


def messages(cluster: Cluster, name: str) -> list[str]:
    """What a Pod that waits says of it: in its status, and in Events."""
    (status,) = cluster.get("pod", name)["status"].get("containerStatuses") or [{}]
    waiting: Json = (status.get("state") or {}).get("waiting") or {}
    said = []
    if waiting.get("reason") == "CreateContainerConfigError":
        said.append(waiting.get("message", ""))
    events = cluster.events(name)
    return said + [each["message"] for each in events if each["reason"] == "FailedMount"]


def test_what_is_missing_is_waited_for_with_upstreams_words(started: Cluster) -> None:
    for name, waiting in WAITING.items():
        wanted = waiting.says.format(ns=started.namespace)
        eventually(
            lambda name=name: messages(started, name),  # type: ignore[misc]
            until=lambda said, wanted=wanted: wanted in said,  # type: ignore[misc]
            timeout_s=240,
            what=f"{name} says {wanted!r}",
        )
    encoded = base64.b64encode(nasty.TEXT.encode()).decode()
    started.create(
        config_map("later", {"k": nasty.TEXT}), secret("later", {"k": nasty.TEXT.encode()})
    )
    patch(started, "configmap", "partial", {"data": {"k": nasty.TEXT}})
    patch(started, "secret", "partial", {"data": {"k": encoded}})
    found = started.wait_pods(WAITING)
    assert {name: item["status"]["phase"] for name, item in found.items()} == dict.fromkeys(
        WAITING, "Succeeded"
    )
    assert {name: started.logs(name) for name in WAITING} == dict.fromkeys(WAITING, nasty.TEXT)


def test_volumes_follow_their_sources(started: Cluster) -> None:
    names = [f"follows-{runtime}-{user}" for runtime, user in EACH]
    started.wait_pods(names, lambda found: found["status"].get("phase") == "Running")
    patch(started, "configmap", "live", {"data": {"k": "new"}})
    patch(started, "secret", "live", {"stringData": {"k": "new"}})
    started.kubectl("label", "pod", *names, "state=new")
    found = started.wait_pods(names)
    assert {item["status"]["phase"] for item in found.values()} == {"Succeeded"}
    followed = ["/d/labels", "/p/labels", "/c/k", "/s/k", "/p/c", "/p/s", "old"]
    for name in names:
        assert started.logs(name).splitlines() == followed, name


def patch(cluster: Cluster, kind: str, name: str, change: Json) -> None:
    cluster.kubectl("patch", kind, name, "-p", json.dumps(change))
