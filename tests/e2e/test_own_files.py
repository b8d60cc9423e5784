"""What containers see of HPK's own files where they mount what these lie in: nothing.

With both runtimes, as uid 0 and as another uid, and as ranks of an MPI run. And names
as long as Kubernetes has them, which must not end up in paths that are limited to less.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import FLAGS, LAMMPS, MPI_FLAGS, Cluster, Json, eventually
from tests.e2e.leftovers import Leftovers
from tests.e2e.volume_pods import RUNTIMES, USERS, container, mounts, pod

NODE = "n4"
MARKER = "a file of the user's own"
SEEN = ("/home/alice", "/home", "/", "/dev/shm", "/tmp")
SCRIPT = """
cat "/seen/0/$1" "/seen/1/alice/$1" "/seen/2/home/alice/$1"
for own in /seen/0/.hpk /seen/1/alice/.hpk /seen/2/home/alice/.hpk; do
    umount "$own" 2>/dev/null && echo unmounted
    mkdir "$own/x" 2>/dev/null && echo written
    [ -d "$own" ] || echo it is gone
done
mv /free/.hpk /free/elsewhere 2>/dev/null && echo renamed
touch "/free/$1" && echo mine
touch "/seen/0/$1" 2>/dev/null || echo read-only
ls -d /dev/shm/hpk-* 2>/dev/null
find /seen/0/.hpk /seen/1/alice/.hpk /seen/2/home/alice/.hpk /seen/3/hpk-* /seen/4/hpk-* \
    -mindepth 1 2>/dev/null
cat /secret/hidden; echo written > /disk/f; cat /disk/f; echo memory > /dev/shm/f; cat /dev/shm/f
"""
SAID = ["own", "own", "own", "mine", "read-only", "hidden", "written", "memory"]


def looking(name: str, runtime: str, user: int, **more: object) -> Json:
    """A pod that looks for what is HPK's."""
    names = [f"seen-{number}" for number in range(len(SEEN))]
    main = container(
        "main",
        SCRIPT,
        args=["sh", MARKER],
        volumeMounts=mounts(
            *((n, f"/seen/{number}", {"readOnly": True}) for number, n in enumerate(names)),
            ("seen-0", "/free"),
            ("secret", "/secret"),
            ("disk", "/disk"),
        ),
    )
    main.update(more.pop("main", {}))  # type: ignore[call-overload]
    volumes: list[Json] = [
        {"name": name, "hostPath": {"path": path}} for name, path in zip(names, SEEN, strict=True)
    ]
    volumes += [
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "disk", "emptyDir": {}},
    ]
    return pod(name, runtime, user, main, volumes=volumes, **more)


def of_long_names(runtime: str) -> Json:
    """Every name as long as Kubernetes lets it be."""
    first, second = "v" + "1" * 62, "v" + "2" * 62
    share = {"volumeMounts": mounts((first, "/disk"), (second, "/memory"))}
    return pod(
        f"{runtime}-" + ".".join(["n" * 63] * 3) + "." + "n" * (253 - 193 - len(runtime)),
        runtime,
        0,
        container("c" * 63, "cat /disk/f /memory/f", **share),
        initContainers=[container("i" * 63, "echo f | tee /disk/f /memory/f", **share)],
        volumes=[
            {"name": first, "emptyDir": {}},
            {"name": second, "emptyDir": {"medium": "Memory"}},
        ],
    )


@pytest.fixture(scope="module")
def leftovers(shared: Cluster) -> Leftovers:
    """What this module's pods leave."""
    return Leftovers.since_now(shared)


@pytest.fixture(scope="module")
def ran(shared: Cluster, leftovers: Leftovers) -> Iterator[dict[str, Json]]:
    """Every pod of this module."""
    marker = shared.home(MARKER)
    shared.run(["sh", "-c", f'echo own > "{marker}"'])
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    shared.create({**secret, "stringData": {"hidden": "hidden\n"}})
    pods = [
        looking(f"looks-{runtime}-{user}", runtime, user) for runtime in RUNTIMES for user in USERS
    ]
    pods += [of_long_names(runtime) for runtime in RUNTIMES]
    ranks = {FLAGS: "--ntasks=2", MPI_FLAGS: "true"}
    pods += [
        looking(f"ranks-{runtime}", runtime, 0, annotations=ranks, main={"image": LAMMPS})
        for runtime in RUNTIMES
    ]
    shared.create(*pods)
    try:
        yield shared.wait_pods([item["metadata"]["name"] for item in pods], timeout_s=200)
    finally:
        shared.run(["rm", "-f", marker])


def log_of(shared: Cluster, found: Json) -> list[str]:
    (main,) = found["spec"]["containers"]
    log = shared.logs(found["metadata"]["name"], "-c", main["name"])
    assert found["status"]["phase"] == "Succeeded", (log, found["status"])
    return log.splitlines()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("user", USERS)
def test_no_container_sees_what_is_hpks(
    shared: Cluster, ran: dict[str, Json], runtime: str, user: int
) -> None:
    assert log_of(shared, ran[f"looks-{runtime}-{user}"]) == SAID


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_no_rank_sees_what_is_hpks(shared: Cluster, ran: dict[str, Json], runtime: str) -> None:
    lines = log_of(shared, ran[f"ranks-{runtime}"])
    assert sorted(lines) == sorted(SAID * 2)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_names_may_be_as_long_as_kubernetes_lets_them_be(
    shared: Cluster, ran: dict[str, Json], runtime: str
) -> None:
    (name,) = (name for name in ran if name.startswith(f"{runtime}-n"))
    assert len(name) == 253
    assert log_of(shared, ran[name]) == ["f", "f"]


@pytest.fixture
def squatted(shared: Cluster, ran: dict[str, Json]) -> Iterator[None]:
    """Another user has made what is alice's on a node, before she was there."""
    assert ran  # her own directories are nobody's now
    ours = ["/tmp/hpk-$(id -u alice)", "/dev/shm/hpk-$(id -u alice)"]
    for place in ours:
        shared.run(["sh", "-c", f"rm -rf {place}*"], host=NODE)
        shared.run(["sh", "-c", f"mkdir {place}"], host=NODE, user="bob")
    try:
        yield
    finally:
        for place in ours:
            shared.run(["sh", "-c", f"rmdir {place}"], host=NODE, user="bob")
            shared.run(["sh", "-c", f"rm -rf {place}-*"], host=NODE)


@pytest.mark.usefixtures("squatted")
def test_a_directory_that_another_user_made_first_harms_nobody(shared: Cluster) -> None:
    names = [f"robbed-{runtime}" for runtime in RUNTIMES]
    on_node = {FLAGS: f"--nodelist={NODE}"}
    shared.create(
        *(looking(f"robbed-{runtime}", runtime, 0, annotations=on_node) for runtime in RUNTIMES)
    )
    for name, found in shared.wait_pods(names).items():
        assert log_of(shared, found) == SAID, name
    left = "find /tmp /dev/shm -path '*/hpk-*-*' -user alice -not -name .lock -mindepth 2"
    eventually(
        lambda: shared.run(["sh", "-c", left], host=NODE).stdout == "",
        what="their directories to be removed",
    )


def test_nothing_of_them_is_left_on_the_nodes(ran: dict[str, Json], leftovers: Leftovers) -> None:
    leftovers.wait_none()
