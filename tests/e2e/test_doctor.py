"""`hpk doctor` on real Slurm: a healthy site, and one that is broken on purpose.

What breaks the whole lab is run by name: other tests share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import operator
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bootstrap.lab import daemons
from bootstrap.lab.hosts import Machine
from tests.e2e.cluster import Cluster, eventually
from tests.e2e.leftovers import Leftovers

Json = dict[str, Any]
ESSENTIAL = 1


@pytest.fixture
def alice(machine: Machine) -> Iterator[Cluster]:
    """The lab's user; whatever a test did, no job of the doctor's and no file is left."""
    user = Cluster(machine=machine, user="alice")
    leftovers = Leftovers.since_now(user)
    yield user
    eventually(lambda: doctors(user), until=operator.not_, what="no job of the doctor's")
    assert files(user) == []
    leftovers.wait_none()


def doctors(user: Cluster) -> dict[str, str]:
    """The doctor's jobs that have not ended: state by id."""
    argv = ["squeue", "-h", "--me", "-o", "%i %T %j"]
    lines = (line.split() for line in user.run(argv).stdout.splitlines())
    return {job: state for job, state, name in lines if name.startswith("hpk-doctor-")}


def files(user: Cluster, home: str = "/home/alice/.hpk") -> list[str]:
    """What lies in the doctor's directory."""
    return user.run(["ls", "-A", f"{home}/doctor"], check=False).stdout.split()


def doctor(user: Cluster, *args: str, exit_code: int = 0, **variables: str) -> dict[str, Json]:
    """Run it; its checks by name."""
    prefix = ["env", *(f"{name}={value}" for name, value in variables.items())]
    argv = [*prefix, "hpk", "doctor", "-o", "json", *args]
    done = user.run(argv, check=False, timeout_s=240)
    assert done.returncode == exit_code, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] is (exit_code == 0)
    return {check["check"]: check for check in answer["checks"]}


def test_a_healthy_site_passes(alice: Cluster) -> None:
    checks = doctor(alice)
    assert {check["status"] for check in checks.values()} == {"ok"}, checks
    assert "10.77.0.1" in checks["node-to-login"]["seen"]
    assert "apptainer version" in checks["runtimes"]["seen"]
    assert "pmix" in checks["mpi"]["seen"]
    text = alice.run(["hpk", "doctor", "--no-job"]).stdout
    assert "Login node login" in text
    assert "skipped" in text


@pytest.mark.long
def test_a_closed_fuse_device_costs_apptainer(alice: Cluster, machine: Machine) -> None:
    nodes = [host.name for host in machine.lab.compute]
    try:
        for name in nodes:
            alice.run(["chmod", "0600", "/dev/fuse"], host=name, user="root")
        checks = doctor(alice)
    finally:
        for name in nodes:
            alice.run(["chmod", "0666", "/dev/fuse"], host=name, user="root")
    assert checks["fuse"]["status"] == "failed"
    assert "mode 0600" in checks["fuse"]["seen"]
    assert "0666" in checks["fuse"]["ask"]
    assert checks["runtimes"]["status"] == "warning"
    assert "podman" in checks["runtimes"]["ask"]


@pytest.mark.long
def test_a_stopped_controller_is_essential(alice: Cluster, machine: Machine) -> None:
    asyncio.run(daemons.stop_controller(machine))
    try:
        checks = doctor(alice, exit_code=ESSENTIAL)
    finally:
        asyncio.run(daemons.start_controller(machine))
        # One that is killed believes in jobs again that ended after it last wrote its state.
        for job in doctors(alice):
            alice.run(["scancel", job], check=False)
    assert checks["slurmctld"]["status"] == "failed"
    assert "DOWN" in checks["slurmctld"]["seen"]
    for name in ("partitions", "job", "fuse", "shared-home"):
        assert checks[name]["status"] == "skipped", name
    assert checks["home-space"]["status"] == "ok"


@pytest.fixture
def full(alice: Cluster, machine: Machine) -> Iterator[None]:
    """All nodes taken by a job of the user's own."""
    argv = ["sbatch", "--parsable", f"--nodes={machine.lab.nodes}", "--exclusive", "--mem=0"]
    argv += ["--output=/dev/null", "--wrap", "sleep infinity"]
    job = alice.run(argv).stdout.strip()
    state = ["squeue", "-h", "-j", job, "-o", "%T"]
    try:
        # Pods of other tests may still be ending on some node.
        eventually(
            lambda: alice.run(state).stdout,
            until=lambda seen: seen.strip() == "RUNNING",
            timeout_s=300,
            what="a full cluster",
        )
        yield
    finally:
        # Whatever happened: a job that waits for all nodes would keep them from everybody else.
        alice.run(["scancel", job])
        eventually(
            lambda: alice.run([*state, "-t", "PD,R,CG"], check=False).stdout,
            until=operator.not_,
            what="an empty cluster",
        )


@pytest.mark.long
@pytest.mark.usefixtures("full")
def test_a_full_queue_is_no_failure(alice: Cluster) -> None:
    checks = doctor(alice, "--timeout", "3")
    assert checks["job"]["status"] == "skipped"
    assert "PENDING" in checks["job"]["seen"]
    assert "--timeout" in checks["job"]["ask"]
    assert checks["fuse"]["status"] == "skipped"


@contextlib.contextmanager
def waiting(user: Cluster) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A doctor whose job waits in a full queue, and its pid on the login host."""
    running = user.start(["hpk", "doctor", "--timeout", "600"])
    try:
        eventually(lambda: list(doctors(user).values()) == ["PENDING"], what="its job in the queue")
        (pid,) = pids(user)
        yield running, pid
    finally:
        # Killing what entered the host would leave the doctor itself, which holds the pipe.
        for pid in pids(user):
            send(user, pid, signal.SIGKILL)
        running.communicate(timeout=60)


def pids(user: Cluster) -> list[int]:
    """The doctors that run, as the login host numbers them."""
    listed = user.run(["ps", "-u", user.user, "-o", "pid=,args="]).stdout.splitlines()
    return [int(line.split()[0]) for line in listed if " doctor --timeout 600" in line]


def send(user: Cluster, pid: int, number: signal.Signals) -> None:
    """Send a signal to a process of the login host."""
    user.run(["kill", f"-{number.value}", str(pid)], check=False)


@pytest.mark.long
@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_doctor_takes_its_job_along(alice: Cluster, number: signal.Signals) -> None:
    with waiting(alice) as (running, pid):
        send(alice, pid, number)
        said, _ = running.communicate(timeout=60)
        assert running.returncode == 130, said
        assert doctors(alice) == {}
        assert files(alice) == []


@pytest.mark.long
@pytest.mark.usefixtures("full")
def test_the_next_run_clears_up_after_a_killed_one(alice: Cluster) -> None:
    with waiting(alice) as (running, pid):
        (job,) = doctors(alice)
        send(alice, pid, signal.SIGKILL)
        running.communicate(timeout=60)
        assert list(doctors(alice)) == [job]
        assert len(files(alice)) == 1
        doctor(alice, "--timeout", "1")
        assert doctors(alice) == {}


def test_a_home_that_nodes_do_not_share_is_essential(alice: Cluster) -> None:
    home = "/tmp/not shared"
    try:
        checks = doctor(alice, exit_code=ESSENTIAL, HPK_HOME=home)
        assert files(alice, home) == []
    finally:
        alice.run(["rm", "-r", home])
    assert checks["shared-home"]["status"] == "failed"
    assert "HPK_HOME" in checks["shared-home"]["ask"]
    assert checks["fuse"]["status"] == "skipped"


def test_a_user_without_default_account_is_told(machine: Machine) -> None:
    carol = Cluster(machine=machine, user="carol")
    checks = doctor(carol, exit_code=ESSENTIAL)
    assert checks["account"]["status"] == "failed"
    assert "users" in checks["account"]["seen"]
    assert checks["job"]["status"] == "failed"
    assert files(carol, "/home/carol/.hpk") == []


def test_a_refused_partition_is_told_in_slurms_words(alice: Cluster) -> None:
    checks = doctor(alice, "--partition", "no such $(one)", exit_code=ESSENTIAL)
    assert checks["job"]["status"] == "failed"
    assert "partition" in checks["job"]["seen"]


@pytest.mark.long
def test_a_firewall_in_one_way_of_the_channel_costs_something(
    alice: Cluster, wall: Callable[[], None]
) -> None:
    wall()
    checks = doctor(alice)
    assert checks["node-to-login"]["status"] == "warning"
    assert "the kubelet dials" in checks["node-to-login"]["costs"]
    assert "refused" in checks["node-to-login"]["seen"]
    assert checks["login-to-node"]["status"] == "ok"
    assert checks["shared-home"]["status"] == "ok"
