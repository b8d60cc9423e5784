"""Volumes, mounts and what containers of one pod share, read inside real containers.

With both runtimes, as uid 0 and as another uid. What ConfigMaps and Secrets give is in
test_values.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import nasty
from tests.e2e.cluster import BUSYBOX, FLAGS, LAMMPS, Cluster, Json, eventually, has_ended
from tests.e2e.leftovers import Leftovers

RUNTIME = "slurm-job.hpk.io/runtime"
MPI_FLAGS = "slurm-job.hpk.io/mpi-flags"
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


@pytest.fixture(scope="module")
def leftovers(shared: Cluster) -> Leftovers:
    """What this module's pods leave."""
    return Leftovers.since_now(shared)


@pytest.fixture(scope="module")
def host_paths(shared: Cluster) -> Iterator[str]:
    """A directory in the user's home for hostPath volumes, with what is to be there before."""
    home = shared.home(f"host 'paths' of {shared.namespace}")
    try:
        shared.run(["sh", "-c", f'mkdir -p "{home}/dir" && echo given > "{home}/dir/given file"'])
        shared.run(["python3", "-I", "-c", _MAKE_SOCKET, home])
        yield home
    finally:
        shared.run(["rm", "-rf", home])


@pytest.fixture(scope="module")
def ran(shared: Cluster, leftovers: Leftovers, host_paths: str) -> dict[str, Json]:
    """Every pod of this module that only runs and ends."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    shared.create({**config, "data": {"nasty": nasty.TEXT, "k": "v"}})
    pods = []
    port = 23450
    for runtime in RUNTIMES:
        pods.append(root_things(f"root-{runtime}", runtime))
        for user in USERS:
            port += 1
            tail = f"{runtime}-{user}"
            pods.append(shared_things(f"shared-{tail}", runtime, user, port))
            pods.append(host_things(f"host-{tail}", runtime, user, host_paths))
            pods.append(security_things(f"security-{tail}", runtime, user))
            pods.append(memory_things(f"memory-{tail}", runtime, user))
    shared.create(*pods)
    return shared.wait_pods([item["metadata"]["name"] for item in pods], timeout_s=150)


each = pytest.mark.parametrize(
    ("runtime", "user"), [(runtime, user) for runtime in RUNTIMES for user in USERS]
)


def main_log(shared: Cluster, found: Json) -> list[str]:
    log = shared.logs(found["metadata"]["name"], "-c", "main")
    assert found["status"]["phase"] == "Succeeded", (log, found["status"])
    return log.splitlines()


@each
def test_containers_share_directories_memory_and_localhost(
    shared: Cluster, ran: dict[str, Json], runtime: str, user: int
) -> None:
    assert main_log(shared, ran[f"shared-{runtime}-{user}"]) == [
        *("one", "two", "disk", "memory", "part", "Read-only file system"),
        *(f"777 {user} {user}", f"644 {user} {user}"),
        *("k", "nasty", "v", "hosts", "heard", "from beside"),
    ]


@each
def test_memory_in_the_place_of_dev_shm(
    shared: Cluster, ran: dict[str, Json], runtime: str, user: int
) -> None:
    name = f"memory-{runtime}-{user}"
    assert main_log(shared, ran[name]) == ["x"]
    assert shared.logs(name, "-c", "beside") == ""


@each
def test_host_paths(
    shared: Cluster, ran: dict[str, Json], host_paths: str, runtime: str, user: int
) -> None:
    name = f"host-{runtime}-{user}"
    assert main_log(shared, ran[name]) == [
        *("given", "given", "Read-only file system", "given", str(user)),
        *("touched", "socket", "device"),
    ]
    made = f"{host_paths}/{name}/x/by-pod"
    assert shared.read(made) == "made\n"
    assert shared.run(["stat", "-c", "%U", made]).stdout == "alice\n"


@each
def test_read_only_roots_and_dropped_capabilities(
    shared: Cluster, ran: dict[str, Json], runtime: str, user: int
) -> None:
    lines = main_log(shared, ran[f"security-{runtime}-{user}"])
    assert lines[:5] == ["Read-only file system"] * 3 + ["x", "x"]
    assert [line.split()[1] for line in lines[5:]] == ["0" * 16] * 2


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_only_real_root_may_do_is_answered(
    shared: Cluster, ran: dict[str, Json], runtime: str
) -> None:
    assert main_log(shared, ran[f"root-{runtime}"]) == [
        *("chown", "mknod", "mkfifo", "su", "nothing was made", "0"),
    ]


def test_nothing_of_them_is_left_on_the_nodes(ran: dict[str, Json], leftovers: Leftovers) -> None:
    assert all(map(has_ended, ran.values()))
    leftovers.wait_none()


def test_ranks_and_sidecars_of_a_pod_over_two_nodes_share_its_directories(
    cluster: Cluster,
) -> None:
    share = {"volumeMounts": mounts(("e", "/e"))}
    main = container(
        "main",
        'cat /e/first > "/e/rank $SLURM_PROCID"; hostname > "/e/host $SLURM_PROCID"',
        **share,
    )
    main["image"] = LAMMPS
    wait = container(
        "wait",
        "while [ $(ls /e | wc -l) -lt 9 ]; do sleep 0.2; done; id -u;"
        " cat /e/rank*; cat /e/host* | sort -u | wc -l",
        **share,
    )
    made = pod(
        "over-nodes",
        "apptainer",
        0,
        main,
        wait,
        annotations={FLAGS: "--nodes=2 --ntasks=4 --ntasks-per-node=2", MPI_FLAGS: "true"},
        initContainers=[container("init", "echo first > /e/first", **share)],
        volumes=[{"name": "e", "emptyDir": {}}],
    )
    cluster.create(made)
    found = cluster.wait_phase("over-nodes", "Succeeded", "Failed", timeout_s=150)
    log = cluster.logs("over-nodes", "-c", "wait")
    assert found["status"]["phase"] == "Succeeded", (log, found["status"])
    assert log.splitlines() == ["0", "first", "first", "first", "first", "2"]
    attempts = f"find {cluster.home('.hpk', 'pods')} -name empty-dirs"
    eventually(lambda: cluster.run(["sh", "-c", attempts]).stdout == "", what="the shared emptyDir")


WRONG = {
    "Directory": "is not a directory",
    "File": "is not a file",
    "Socket": "is not a socket file",
    "CharDevice": "is not a character device",
    "BlockDevice": "is not a block device",
}
"""What a hostPath of each type says of what is not there."""


def test_a_host_path_waits_for_what_it_names(cluster: Cluster) -> None:
    path = cluster.home(f"comes later in {cluster.namespace}")

    def waiter(kind: str) -> Json:
        main = container("main", "cat /f", volumeMounts=mounts(("h", "/f")))
        volumes = [{"name": "h", "hostPath": {"path": path, "type": kind}}]
        return pod(f"waits-{kind.lower()}", "apptainer", 0, main, volumes=volumes)

    cluster.create(*map(waiter, WRONG))

    def message(kind: str) -> str:
        name = f"waits-{kind.lower()}"
        (status,) = cluster.get("pod", name)["status"].get("containerStatuses") or [{}]
        waiting: Json = (status.get("state") or {}).get("waiting") or {}
        return str(waiting.get("message", ""))

    for kind, says in WRONG.items():
        wanted = f"hostPath type check failed: {path} {says}"
        eventually(
            lambda kind=kind: message(kind),  # type: ignore[misc]
            until=lambda said, wanted=wanted: said.endswith(wanted),  # type: ignore[misc]
            timeout_s=150,
            what=wanted,
        )
    try:
        cluster.run(["sh", "-c", f"echo there > '{path}'"])
        found = cluster.wait_phase("waits-file", "Succeeded", "Failed")
        assert found["status"]["phase"] == "Succeeded"
        assert cluster.logs("waits-file") == "there\n"
    finally:
        cluster.run(["rm", "-f", path])


def test_an_empty_dir_that_outgrows_its_limit_evicts_the_pod(cluster: Cluster) -> None:
    main = container(
        "main",
        "dd if=/dev/zero of=/e/f bs=1M count=8; sleep 600",
        volumeMounts=mounts(("e", "/e")),
    )
    volumes = [{"name": "e", "emptyDir": {"sizeLimit": "4Mi"}}]
    cluster.create(pod("big", "apptainer", 0, main, volumes=volumes))
    status = cluster.wait_phase("big", "Failed")["status"]
    assert status["reason"] == "Evicted"
    assert status["message"] == 'Usage of EmptyDir volume "e" exceeds the limit "4Mi".'


def test_a_deployment_with_a_config_map_and_a_secret(cluster: Cluster) -> None:
    cluster.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "v1"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "w"}},
    )
    script = (
        'echo "$P $(cat /c/k)"; while ! grep -q v2 /c/k; do sleep 0.2; done; echo now v2; sleep 600'
    )
    main = container(
        "main",
        script,
        env=[{"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}}],
        volumeMounts=mounts(("c", "/c")),
    )
    template = {
        "metadata": {"labels": {"app": "d"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [main],
            "volumes": [{"name": "c", "configMap": {"name": "c"}}],
        },
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "d"}},
            "template": template,
        },
    }
    cluster.create(deployment)
    cluster.kubectl("rollout", "status", "deployment/d", "--timeout=120s", timeout_s=150)
    names = list(cluster.pods())
    assert len(names) == 2

    def all_say(text: str) -> bool:
        return all(cluster.logs(name) == text for name in names)

    eventually(lambda: all_say("w v1\n"), what="both logs")
    cluster.kubectl("patch", "configmap", "c", "-p", '{"data":{"k":"v2"}}')
    eventually(lambda: all_say("w v1\nnow v2\n"), timeout_s=120, what="the update in both")
    cluster.kubectl("delete", "deployment", "d", "--wait=false")
