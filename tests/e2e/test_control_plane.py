"""The control plane on the lab's login node, as its users see it.

Each test has a home of its own, so that nothing else that runs in the lab is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from tests.e2e.homes import Home, component_pids

COMPONENTS = {
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "coredns",
    "kubelet",
}
NO_CREDENTIALS = """
import json, socket, ssl, sys
for address, port in json.load(sys.stdin):
    context = ssl._create_unverified_context()
    try:
        plain = socket.create_connection((address, port), timeout=5)
        with context.wrap_socket(plain) as tls:
            tls.sendall(b"GET /api HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            answer = b""
            while chunk := tls.recv(4096):
                answer += chunk
            print(answer.split(b"\\r\\n")[0].decode(errors="replace") or "closed")
    except OSError as error:
        print("refused", type(error).__name__)
"""


def test_up_status_down(home: Home) -> None:
    assert home.status(exit_code=3)["health"] == "down"
    up = home.run("hpk", "up")
    assert "Next: kubectl" in up.stdout
    status = home.status()
    assert status["health"] == "ready"
    assert {one["name"] for one in status["components"]} == COMPONENTS
    assert {node["name"] for node in status["nodes"]} == {"main", "debug"}
    assert all(node["ready"] and node["fresh"] for node in status["nodes"])
    assert status["slurm"]["version"]
    assert home.run("kubectl", "get", "--raw", "/readyz").stdout == "ok"

    again = home.run("hpk", "up")
    assert "up already" in again.stdout
    assert component_pids(home.status()) == component_pids(status)

    home.run("hpk", "down")
    assert home.status(exit_code=3)["components"] == []
    assert home.processes() == []
    assert home.read_json("endpoint.json") is None


def test_it_survives_a_logout_and_a_terminal_that_goes_away(home: Home) -> None:
    home.run("script", "-qec", "hpk up --no-wait", "/dev/null")
    home.run("hpk", "status", "--wait")
    assert home.run("kubectl", "get", "--raw", "/readyz").stdout == "ok"


def test_another_user_runs_his_own_and_reaches_nothing(
    make_home: Callable[[str], Home],
) -> None:
    alice, bob = make_home("alice"), make_home("bob")
    alice.run("hpk", "up")
    bob.run("hpk", "up")
    ports = alice.read_json("control-plane/ports.json")
    others = bob.read_json("control-plane/ports.json")
    assert ports is not None
    assert others is not None
    assert not set(ports.values()) & set(others.values())
    assert {node["ready"] for node in bob.status()["nodes"]} == {True}

    server = alice.status()["server"]
    address = server.removeprefix("https://").partition(":")[0]
    open_on_address = ("api", "kubelet", "channel")
    targets = [
        (address if name in open_on_address else "127.0.0.1", port) for name, port in ports.items()
    ]
    asked = bob.run("python3", "-c", NO_CREDENTIALS, stdin=json.dumps(targets)).stdout.splitlines()
    answers = dict(zip(ports, asked, strict=True))
    assert "401" in answers["api"]
    for name in ("kubelet", "etcd", "etcd_peer", "dns", "channel"):
        assert "HTTP" not in answers[name], answers
    theirs = bob.run(
        "kubectl",
        "--server",
        server,
        "--insecure-skip-tls-verify",
        "get",
        "secrets",
        "-A",
        check=False,
    )
    assert theirs.returncode != 0
    assert "Unauthorized" in theirs.stderr or "logged in" in theirs.stderr
    assert bob.run("ls", alice.directory, check=False).returncode != 0


def test_nothing_else_listens(home: Home) -> None:
    home.run("hpk", "up")
    ports = home.read_json("control-plane/ports.json")
    assert ports is not None
    pids = set(component_pids(home.status()).values())
    listening = set()
    for line in home.run("ss", "-Hltnp").stdout.splitlines():
        if any(f"pid={pid}," in line for pid in pids):
            listening.add(line.split()[3])
    address = home.status()["server"].removeprefix("https://").partition(":")[0]
    assert listening == {
        *(f"{address}:{ports[name]}" for name in ("api", "kubelet", "channel")),
        *(f"127.0.0.1:{ports[name]}" for name in ("etcd", "etcd_peer", "dns")),
    }


@pytest.mark.parametrize("argv", [("down",), ("down", "--cancel-jobs"), ("down", "--keep-jobs")])
def test_down_when_down_is_no_error(home: Home, argv: Sequence[str]) -> None:
    assert "not up" in home.run("hpk", *argv).stdout


def test_kubeconfig(home: Home) -> None:
    missing = home.run("hpk", "kubeconfig", check=False)
    assert missing.returncode == 1
    assert "hpk up" in missing.stderr
    home.run("hpk", "up", "--no-wait")
    home.run("hpk", "status", "--wait")
    assert home.run("hpk", "kubeconfig").stdout.strip() == f"{home.directory}/.hpk/kubeconfig"
    target = f"{home.directory}/config"
    home.run("hpk", "kubeconfig", "--merge", target)
    done = home.run(
        "kubectl", "--kubeconfig", target, "--context", "hpk", "get", "--raw", "/readyz"
    )
    assert done.stdout == "ok"


def test_whoever_waited_can_run_a_pod_at_once(home: Home) -> None:
    """Right after the nodes were Ready it was Forbidden: no service account was there yet."""
    early = home.run("hpk", "status", "--wait", "--timeout", "0.1", "-o", "json", check=False)
    assert early.returncode == 3
    assert json.loads(early.stdout)["health"] == "down"
    assert "there is still to come: a control plane" in early.stderr
    home.run("hpk", "up", "--no-wait")
    waited = home.run("hpk", "status", "--wait", "-o", "json")
    status = json.loads(waited.stdout)
    assert status["health"] == "ready"
    assert status["waiting_for"] == []
    home.run("kubectl", "run", "p", "--image=registry.lab:5000/busybox:latest", "--", "true")


def test_a_start_that_cannot_work_says_why(home: Home) -> None:
    config = '[control-plane]\naddress = "203.0.113.9"\n'
    home.run("bash", "-c", 'mkdir -p "$HPK_HOME" && cat > "$HPK_HOME/config.toml"', stdin=config)
    done = home.run("hpk", "up", check=False)
    assert done.returncode == 1
    assert "203.0.113.9" in done.stderr
    assert "config.toml" in done.stderr
    assert home.processes() == []
