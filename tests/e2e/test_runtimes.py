"""One Protocol, several runtimes: the same pods, the same answers, and nothing left on the nodes.

Each test runs once per runtime.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import (
    BUSYBOX,
    ENTRYPOINT,
    FLAGS,
    LAMMPS,
    RUNTIME,
    Cluster,
    Json,
    eventually,
    has_ended,
    main_status,
    pod,
    terminated,
)
from tests.e2e.faults import PodFiles, node_of
from tests.e2e.leftovers import Leftovers, drained
from tests.e2e.nasty_pods import assert_arrived, nasty_pod

IMAGES = "/home/alice/images of 'mine'"
WAIT = "trap 'ls /bin | grep -x busybox; exit 5' TERM; echo up; while :; do sleep 0.1; done"
STUBBORN = "(setsid sleep 1000 &); trap '' TERM; echo up; while :; do sleep 1; done"
WHO = (
    "id -u; id -g; id -un; touch /tmp/f && stat -c %u /tmp/f; cat /proc/self/uid_map | wc -l; "
    "cat /proc/1/comm; ls -d /home/alice 2>/dev/null || echo alone; "
    "grep -o 'CapEff.*' /proc/self/status"
)


@pytest.fixture(scope="module", params=["apptainer", "podman"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def runs(
    name: str, runtime: str, *command: str, annotations: Json | None = None, **options: Any
) -> Json:
    """A Pod of this runtime."""
    return pod(name, *command, annotations={RUNTIME: runtime, **(annotations or {})}, **options)


@pytest.fixture(scope="module")
def leftovers(shared: Cluster) -> Leftovers:
    """What this module's pods leave."""
    return Leftovers.since_now(shared)


@pytest.fixture(scope="module")
def images(shared: Cluster) -> Iterator[str]:
    """A directory of alice's with a SIF file and a sandbox."""
    shared.run(["rm", "-rf", IMAGES])
    shared.run(["mkdir", IMAGES])
    pull = ["apptainer", "-q", "pull", f"{IMAGES}/tell.sif", f"docker://{ENTRYPOINT}"]
    shared.run(pull)
    shared.run(["apptainer", "-q", "build", "--sandbox", f"{IMAGES}/box", f"{IMAGES}/tell.sif"])
    yield IMAGES
    shared.run(["rm", "-rf", IMAGES])


@pytest.fixture(scope="module")
def ran(shared: Cluster, runtime: str, images: str, leftovers: Leftovers) -> dict[str, Json]:
    """Pods as they ended, by name without the runtime's prefix."""
    missing: Json = {"imagePullPolicy": "Never"}
    pods = {
        "code": ("sh", "-c", "echo out; echo err >&2; echo why > /dev/termination-log; exit 3"),
        "killed": ("sh", "-c", "sh -c 'kill -9 $$$$'; exit $$?"),
        "oom": ("sh", "-c", "echo start; a=xxxxxxxx; while :; do a=$$a$$a; done"),
        "absent": ("no-such-program",),
        "root": ("sh", "-c", WHO),
    }
    big: Json = {"limits": {"memory": "256Mi"}}
    made = {name: runs(f"{runtime}-{name}", runtime, *argv) for name, argv in pods.items()}
    made["oom"] = runs(f"{runtime}-oom", runtime, *pods["oom"], resources=big)
    made["user"] = runs(f"{runtime}-user", runtime, "sh", "-c", WHO, image=ENTRYPOINT)
    made["image"] = runs(f"{runtime}-image", runtime, image=ENTRYPOINT)
    made["nasty-root"] = nasty_pod(f"{runtime}-nasty-root", BUSYBOX, {RUNTIME: runtime})
    made["nasty-user"] = nasty_pod(f"{runtime}-nasty-user", ENTRYPOINT, {RUNTIME: runtime})
    file = f"{images}/tell.sif"
    made["file"] = runs(f"{runtime}-file", runtime, image=file, container=missing)
    made["box"] = runs(f"{runtime}-box", runtime, "cat", "/etc/passwd", image=f"{images}/box/")
    shared.create(*made.values())
    names = {item["metadata"]["name"]: name for name, item in made.items()}
    return {names[found]: item for found, item in shared.wait_pods(names).items()}


def log(cluster: Cluster, item: Json) -> list[str]:
    return cluster.logs(item["metadata"]["name"]).splitlines()


def test_how_a_container_ends(shared: Cluster, runtime: str, ran: dict[str, Json]) -> None:
    ended = terminated(ran["code"])
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "why\n")
    assert sorted(log(shared, ran["code"])) == ["err", "out"]
    assert terminated(ran["killed"])["exitCode"] == 137
    assert terminated(ran["oom"])["reason"] == "OOMKilled"
    assert log(shared, ran["oom"]) == ["start"]
    absent = terminated(ran["absent"])
    assert (absent["reason"], absent["exitCode"]) == ("StartError", 128)
    assert "no-such-program" in absent["message"]
    for item in ran.values():
        assert "containerStatuses" in item["status"], item["status"]
        assert main_status(item)["containerID"].startswith(f"{runtime}://")


def test_who_a_container_is(shared: Cluster, ran: dict[str, Json]) -> None:
    root, user = log(shared, ran["root"]), log(shared, ran["user"])
    assert root[:3] == ["0", "0", "root"]
    assert user[:2] == ["1234", "2345"]
    assert root[3] == "0"
    assert user[3] == "1234"
    for lines in (root, user):
        assert lines[4] == "1"
        assert "slurm" not in lines[5]
        assert lines[6] == "alone"
    assert user[-1].endswith("0000000000000000")


def test_an_images_own_command_and_directory(shared: Cluster, ran: dict[str, Json]) -> None:
    assert log(shared, ran["image"]) == [
        "uid=1234 gid=2345",
        "cwd=/srv",
        "GREETING=hello",
        "argument=from",
        "argument=the image",
    ]


@pytest.mark.parametrize("name", ["nasty-root", "nasty-user"])
def test_argv_environment_and_directory_arrive_byte_for_byte(
    shared: Cluster, ran: dict[str, Json], name: str
) -> None:
    foreign = ("APPTAINER_", "SINGULARITY_", "SLURM_", "HPK_", "CONTAINERS_", "_CONTAINERS", "XDG_")
    assert_arrived(shared, ran[name], foreign=foreign)


def test_an_image_by_its_path(shared: Cluster, images: str, ran: dict[str, Json]) -> None:
    assert log(shared, ran["file"]) == log(shared, ran["image"])
    assert main_status(ran["file"])["imageID"].startswith(f"{images}/tell.sif@")
    assert log(shared, ran["box"])[0].startswith("root:")
    assert main_status(ran["box"])["imageID"].startswith(f"{images}/box@")


def test_nothing_is_left_after_pods_that_ended(ran: dict[str, Json], leftovers: Leftovers) -> None:
    assert all(map(has_ended, ran.values()))
    leftovers.wait_none()


def test_a_stop_is_graceful_and_leaves_nothing(
    shared: Cluster, runtime: str, leftovers: Leftovers
) -> None:
    name = f"{runtime}-stop"
    shared.create(runs(name, runtime, "sh", "-c", WAIT))
    shared.wait_phase(name, "Running")
    eventually(lambda: "up" in shared.logs(name), what="its first line")
    job = PodFiles.of(shared, name).job_id()
    shared.run(["scancel", str(job)])
    found = shared.wait_phase(name, "Failed")
    assert terminated(found)["exitCode"] == 5
    assert shared.logs(name).split() == ["up", "busybox"], "its image can still be read"
    leftovers.wait_none()


def test_kill_dash_nine_of_the_supervisor_leaves_nothing(
    shared: Cluster, runtime: str, leftovers: Leftovers
) -> None:
    name = f"{runtime}-orphan"
    shared.create(runs(name, runtime, "sh", "-c", STUBBORN))
    shared.wait_phase(name, "Running")
    eventually(lambda: "up" in shared.logs(name), what="its first line")
    files = PodFiles.of(shared, name)
    host = node_of(shared, files.job_id())
    (attempt,) = files.attempts()
    assert leftovers.on(host)
    shared.run(["pkill", "-9", "-o", "-f", f"attempt-dir {attempt}"], host=host, user="root")
    shared.wait_phase(name, "Failed")
    leftovers.wait_none(files=False)
    again = f"{runtime}-again"
    shared.create(runs(again, runtime, "true", annotations={FLAGS: f"--nodelist={host}"}))
    shared.wait_phase(again, "Succeeded")
    leftovers.wait_none()
    assert drained(shared) == ""


def test_a_container_restarts(shared: Cluster, runtime: str) -> None:
    name = f"{runtime}-again-and-again"
    script = "test -e /new && echo dirty; touch /new; echo start; exit 1"
    shared.create(runs(name, runtime, "sh", "-c", script, restart_policy="Always"))

    def look() -> Json | None:
        (status,) = shared.get("pod", name)["status"].get("containerStatuses") or [{}]
        return status if status.get("restartCount", 0) >= 1 else None

    status = eventually(look, what="a restart")
    assert status is not None
    assert status["lastState"]["terminated"]["exitCode"] == 1
    (attempt,) = PodFiles.of(shared, name).attempts()
    second = f"{attempt}/logs/main/1.log"
    eventually(lambda: "start" in shared.read(second), what="the second run's log")
    assert "dirty" not in shared.read(second)
    shared.kubectl("delete", "pod", name, "--wait=true")


def test_an_mpi_run_spans_two_nodes(shared: Cluster, runtime: str, leftovers: Leftovers) -> None:
    name = f"{runtime}-mpi"
    flags = {FLAGS: "--ntasks=4 --ntasks-per-node=2", "slurm-job.hpk.io/mpi-flags": "true"}
    small: Json = {"requests": {"cpu": "1", "memory": "128Mi"}}
    shared.create(
        runs(name, runtime, "mpi-proof", image=LAMMPS, annotations=flags, resources=small)
    )
    found = shared.wait_phase(name, "Succeeded", "Failed", timeout_s=300)
    text = shared.logs(name)
    assert found["status"]["phase"] == "Succeeded", text
    proof = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert proof == {"world": 4, "hosts": 2, "sum": 10, "expected": 10, "ok": True}
    leftovers.wait_none()
