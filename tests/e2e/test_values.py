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
from tests.e2e.cluster import Cluster, Json, eventually
from tests.e2e.values import (
    ENV_BYTES,
    as_user,
    config_map,
    container,
    files,
    pod,
    reader,
    secret,
    value_from,
    variables,
)

EACH = [(runtime, user) for runtime in ("apptainer", "podman") for user in (0, 1234)]
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
