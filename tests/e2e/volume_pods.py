"""Pods that read their volumes, their root file system and each other, and say what they found."""

from __future__ import annotations

from typing import Any

from tests.e2e import nasty
from tests.e2e.cluster import BUSYBOX, RUNTIME, Json

RUNTIMES = ("apptainer", "podman")
USERS = (0, 1234)


def container(name: str, script: str, **more: Any) -> Json:
    return {"name": name, "image": BUSYBOX, "command": ["sh", "-c", script], **more}


def mounts(*items: tuple[Any, ...]) -> list[Json]:
    """From (volume, path), with more fields as a third."""
    return [{"name": i[0], "mountPath": i[1], **(i[2] if len(i) > 2 else {})} for i in items]


def pod(name: str, runtime: str, user: int, *containers: Json, **spec: Any) -> Json:
    annotations = {RUNTIME: runtime, **spec.pop("annotations", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "securityContext": {"runAsUser": user, "runAsGroup": user},
            "containers": list(containers),
            **spec,
        },
    }


EMPTY = """
set -e
cat /disk/log
mkdir -p /disk/d && echo disk > /disk/d/f && cat /again/d/f
echo memory > /memory/f && cat /memory/f && grep -q ' /memory tmpfs ' /proc/mounts
echo part > /part/f && cat "/disk/$1/f"
(touch /frozen/x) 2>&1 | grep -o 'Read-only file system'
stat -c '%a %u %g' /disk /disk/d/f
ls /disk/inner
cat /disk/inner/k; echo
touch /etc/hosts 2>/dev/null && echo hosts
while [ "$(cat /dev/shm/said 2>/dev/null)" != hello ]; do sleep 0.1; done; echo heard
mkfifo /tmp/silent  # an input that never ends: nc stays until it is answered
while ! nc 127.0.0.1 "$2" <> /tmp/silent > /tmp/answer 2>/dev/null; do sleep 0.1; done
cat /tmp/answer
"""


def shared_things(name: str, runtime: str, user: int, port: int) -> Json:
    disk = mounts(("e", "/disk"))
    main = container(
        "main",
        EMPTY,
        args=["sh", nasty.PATH, str(port)],
        volumeMounts=mounts(
            ("c", "/disk/inner"),
            ("e", "/disk"),
            ("e", "/again"),
            ("m", "/memory"),
            ("e", "/part", {"subPath": nasty.PATH}),
            ("e", "/frozen", {"readOnly": True}),
        ),
    )
    beside = container(
        "beside", f"printf hello > /dev/shm/said; echo from beside | nc -l -p {port}"
    )
    return pod(
        name,
        runtime,
        user,
        main,
        beside,
        initContainers=[
            container("one", "echo one >> /disk/log", volumeMounts=disk),
            container("two", "echo two >> /disk/log", volumeMounts=disk),
        ],
        volumes=[
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            {"name": "c", "configMap": {"name": "c"}},
        ],
    )


HOST = """
cat "/whole/given file"
cat /file
echo made > /made/by-pod
(touch /frozen/x) 2>&1 | grep -o 'Read-only file system'
cat "/part/given file"
stat -c %u /whole
echo touched > /touched && cat /touched
[ -S /socket ] && echo socket
[ -c /dev/fuse ] && : <> /dev/fuse && echo device
"""
_MAKE_SOCKET = """
import os, socket, sys
os.chdir(sys.argv[1])
socket.socket(socket.AF_UNIX).bind("socket")
"""


def host_things(name: str, runtime: str, user: int, home: str) -> Json:
    main = container(
        "main",
        HOST,
        volumeMounts=mounts(
            ("d", "/whole"),
            ("f", "/file"),
            ("made", "/made"),
            ("d", "/frozen", {"readOnly": True}),
            ("parent", "/part", {"subPath": "dir"}),
            ("touched", "/touched"),
            ("socket", "/socket"),
            ("device", "/dev/fuse"),
        ),
    )
    volumes = [
        {"name": "d", "hostPath": {"path": f"{home}/dir", "type": "Directory"}},
        {"name": "f", "hostPath": {"path": f"{home}/dir/given file", "type": "File"}},
        {"name": "made", "hostPath": {"path": f"{home}/{name}/x", "type": "DirectoryOrCreate"}},
        {"name": "parent", "hostPath": {"path": home}},
        {"name": "touched", "hostPath": {"path": f"{home}/{name}.f", "type": "FileOrCreate"}},
        {"name": "socket", "hostPath": {"path": f"{home}/socket", "type": "Socket"}},
        {"name": "device", "hostPath": {"path": "/dev/fuse", "type": "CharDevice"}},
    ]
    return pod(name, runtime, user, main, volumes=volumes)


SECURITY = """
(echo x > /new) 2>&1 | grep -o 'Read-only file system'
(echo x > /etc/new) 2>&1 | grep -o 'Read-only file system'
(echo x > /tmp/new) 2>&1 | grep -o 'Read-only file system'
echo x > /written/f && cat /written/f
echo x > /dev/shm/f && cat /dev/shm/f
grep CapEff /proc/self/status
grep CapBnd /proc/self/status
"""


def security_things(name: str, runtime: str, user: int) -> Json:
    main = container(
        "main",
        SECURITY,
        securityContext={"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        volumeMounts=mounts(("e", "/written")),
    )
    return pod(name, runtime, user, main, volumes=[{"name": "e", "emptyDir": {}}])


def memory_things(name: str, runtime: str, user: int) -> Json:
    """A bigger /dev/shm, as machine learning frameworks are given it."""
    return pod(
        name,
        runtime,
        user,
        container(
            "main",
            "while [ ! -e /dev/shm/x ]; do sleep 0.1; done; cat /dev/shm/x",
            volumeMounts=mounts(("m", "/dev/shm")),
        ),
        container("beside", "echo x > /m/x; ls /dev/shm", volumeMounts=mounts(("m", "/m"))),
        volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}],
    )


ROOT = """
touch /tmp/f && chown 33:34 /tmp/f && chown -R 33 /etc && chgrp 5 /tmp/f && echo chown
mknod /tmp/null c 1 3 && echo mknod
mkfifo /tmp/pipe && [ -p /tmp/pipe ] && echo mkfifo
su -s /bin/sh root -c 'echo su'
[ -e /tmp/null ] || echo nothing was made
id -u
"""


def root_things(name: str, runtime: str) -> Json:
    return pod(name, runtime, 0, container("main", ROOT))
