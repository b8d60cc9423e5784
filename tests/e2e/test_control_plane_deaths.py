"""Components and the supervising process killed: what comes back, and what is left."""

from __future__ import annotations

import json
from functools import partial

from tests.e2e.homes import Home, component_pids
from tests.waiting import eventually


def test_a_component_that_dies_comes_back(home: Home) -> None:
    home.run("hpk", "up")
    before = home.status()
    for name in ("kube-apiserver", "kubelet"):
        home.run("kill", "-9", str(component_pids(before)[name]))

    def recovered() -> bool:
        done = home.run("hpk", "status", "-o", "json", check=False)
        after = json.loads(done.stdout)
        return after["health"] == "ready" and all(
            component_pids(after)[name] != component_pids(before)[name]
            for name in ("kube-apiserver", "kubelet")
        )

    eventually(recovered, what="both components started again")
    assert component_pids(home.status())["etcd"] == component_pids(before)["etcd"]


def test_each_component_that_dies_comes_back(home: Home) -> None:
    home.run("hpk", "up")
    for name, pid in component_pids(home.status()).items():
        home.run("kill", "-9", str(pid))
        eventually(partial(_has_followed, home, name, pid), what=f"{name} has come back")
        home.run("hpk", "status", "--wait", timeout_s=300)
        home.run("kubectl", "create", "configmap", f"after-{name}")
    home.run("hpk", "down")


def _has_followed(home: Home, name: str, pid: int) -> bool:
    return _pids(home)[name] not in (0, pid)


def _pids(home: Home) -> dict[str, int]:
    done = home.run("hpk", "status", "-o", "json", check=False)
    return component_pids(json.loads(done.stdout))


def test_a_killed_supervising_process_leaves_nothing_and_is_followed(home: Home) -> None:
    home.run("hpk", "up")
    home.run("kubectl", "create", "configmap", "kept", "--from-literal=a=b")
    home.run("kill", "-9", str(home.status()["pid"]))
    eventually(lambda: not home.processes(), what="no process left")
    status = home.status(exit_code=3)
    assert "hpk up starts it again" in status["problems"][0]
    home.run("hpk", "up")
    assert home.run("kubectl", "get", "configmap", "kept", "-o", "jsonpath={.data.a}").stdout == "b"


def test_down_puts_in_order_what_died(home: Home) -> None:
    home.run("hpk", "up", "--no-wait")
    endpoint = home.read_json("endpoint.json")
    assert endpoint is not None
    home.run("kill", "-9", str(endpoint["pid"]))
    down = home.run("hpk", "down")
    assert "had died" in down.stderr
    assert home.read_json("endpoint.json") is None
