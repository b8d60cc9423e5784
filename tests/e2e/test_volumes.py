"""Volumes, mounts and what containers of one pod share, read inside real containers.

With both runtimes, as uid 0 and as another uid. What ConfigMaps and Secrets give is in
test_values.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import nasty
from tests.e2e.cluster import FLAGS, LAMMPS, MPI_FLAGS, Cluster, Json, eventually, has_ended
from tests.e2e.leftovers import Leftovers
from tests.e2e.volume_pods import (
    _MAKE_SOCKET,
    RUNTIMES,
    USERS,
    container,
    host_things,
    memory_things,
    mounts,
    pod,
    root_things,
    security_things,
    shared_things,
)


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
        wanted = f"hostPath type check failed, {path} {says}, unable to determine its type: "
        eventually(
            lambda kind=kind: message(kind),  # type: ignore[misc]
            until=lambda said, wanted=wanted: wanted in said,  # type: ignore[misc]
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
