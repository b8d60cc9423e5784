"""Restarts within a Pod's job. A server on the login host counts its runs and numbers them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import Cluster, Json, eventually, main_status, pod, succeeded

COUNT = """
import socket
with socket.create_server(("", 0)) as server:
    print(server.getsockname()[1], flush=True)
    runs = 0
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"%d\\n" % runs)
        runs += 1
        print(runs, flush=True)
"""


@pytest.fixture
def counter(cluster: Cluster) -> Iterator[str]:
    """A shell command that prints 0 when it runs first, then 1, …"""
    process = cluster.start(["python3", "-c", COUNT])
    assert process.stdout is not None
    port = int(process.stdout.readline())
    address = next(h.address for h in cluster.machine.lab.hosts if h.name == LOGIN)
    yield f"nc {address} {port}"
    process.terminate()
    process.wait(30)
    process.stdout.close()


def test_on_failure_restarts_in_the_same_job_until_it_succeeds(
    cluster: Cluster, counter: str
) -> None:
    # The first restart comes at once, the second after a while.
    script = f"run=$({counter}); echo this is run $run; test $run -gt 1"
    cluster.create(pod("again", "sh", "-c", script, restart_policy="OnFailure"))

    def backs_off() -> Json | None:
        (status,) = cluster.get("pod", "again")["status"].get("containerStatuses") or [{}]
        waiting = status.get("state", {}).get("waiting") or {}
        return status if waiting.get("reason") == "CrashLoopBackOff" else None

    status = eventually(backs_off, what="CrashLoopBackOff")
    assert status is not None
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert "back-off 10s restarting failed container=main" in status["state"]["waiting"]["message"]
    line = cluster.kubectl("get", "pod", "again", "--no-headers").stdout.split()
    assert line[1:3] == ["0/1", "CrashLoopBackOff"]
    assert cluster.logs("again") == "this is run 1\n"
    found = cluster.wait_phase("again", "Succeeded", "Failed")
    assert succeeded(found)
    status = main_status(found)
    assert status["restartCount"] == 2
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert cluster.logs("again") == "this is run 2\n"
    assert cluster.logs("again", "--previous") == "this is run 1\n"
    assert len(cluster.job_ids("again")) == 1


def test_always_restarts_a_container_that_succeeded(cluster: Cluster, counter: str) -> None:
    script = f"run=$({counter}); echo run $run; test $run = 0 || exec sleep 100000"
    cluster.create(pod("always", "sh", "-c", script, restart_policy="Always"))

    def runs_again() -> Json | None:
        found = cluster.get("pod", "always")
        (status,) = found["status"].get("containerStatuses") or [{}]
        return found if status.get("restartCount") == 1 and status.get("ready") else None

    found = eventually(runs_again, what="a second run")
    assert found is not None
    assert found["status"]["phase"] == "Running"
    last = main_status(found)["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"]) == (0, "Completed")
    assert cluster.logs("always", "--previous") == "run 0\n"
    cluster.kubectl("delete", "pod", "always", "--timeout=60s")
