"""A Pod that reads each source of variables and each kind of projected file, and what it must find.

Nasty text goes through each of them.
"""

from __future__ import annotations

import base64
from typing import Any

from tests.e2e import nasty
from tests.e2e.cluster import BUSYBOX, Json

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
