"""The control plane on the lab's login node and inside a Slurm job, as its users see it.

Each test has a home of its own, so that nothing else that runs in the lab is touched.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.waiting import eventually

pytestmark = pytest.mark.e2e
Json = dict[str, Any]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A user of the lab with an HPK_HOME of his own."""

    machine: Machine
    user: str
    directory: str

    def run(
        self,
        *argv: str,
        host: str = LOGIN,
        check: bool = True,
        stdin: str = "",
        timeout_s: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user."""
        home = f"{self.directory}/.hpk"
        whole = self.machine.argv(
            host,
            argv,
            user=self.machine.lab.user(self.user),
            environment={"HPK_HOME": home, "KUBECONFIG": f"{home}/kubeconfig"},
        )
        done = subprocess.run(
            whole, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            pytest.fail(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def status(self, *, exit_code: int = 0) -> Json:
        """`hpk status -o json`."""
        done = self.run("hpk", "status", "-o", "json", check=False)
        assert done.returncode == exit_code, done.stdout + done.stderr
        answer: Json = json.loads(done.stdout)
        return answer

    def read_json(self, name: str) -> Json | None:
        """A file of the home."""
        done = self.run("cat", f"{self.directory}/.hpk/{name}", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def processes(self, host: str = LOGIN) -> list[str]:
        """Command lines of this home's processes, by what their environment says."""
        script = (
            'for p in /proc/[0-9]*; do tr "\\0" "\\n" < $p/environ 2>/dev/null'
            ' | grep -qxF "HPK_HOME=$1" && tr "\\0" " " < $p/cmdline && echo; done; true'
        )
        done = self.run(
            "env", "-u", "HPK_HOME", "bash", "-c", script, "-", f"{self.directory}/.hpk", host=host
        )
        return [line for line in done.stdout.splitlines() if line.strip()]


@pytest.fixture
def make_home(machine: Machine) -> Iterator[Callable[[str], Home]]:
    """Makes homes; what runs in them is stopped and they are removed."""
    made: list[Home] = []

    def make(user: str) -> Home:
        home = Home(machine=machine, user=user, directory=f"/home/{user}/cp {secrets.token_hex(4)}")
        home.run("mkdir", "-p", home.directory)
        made.append(home)
        return home

    yield make
    for home in made:
        home.run("hpk", "down", "--cancel-jobs", check=False)
        home.run("rm", "-rf", home.directory)


@pytest.fixture
def home(make_home: Callable[[str], Home]) -> Home:
    """alice's."""
    return make_home("alice")


def _pids(status: Json) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in status["components"]}


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
    assert _pids(home.status()) == _pids(status)

    home.run("hpk", "down")
    assert home.status(exit_code=3)["components"] == []
    assert home.processes() == []
    assert home.read_json("endpoint.json") is None


def test_it_survives_a_logout_and_a_terminal_that_goes_away(home: Home) -> None:
    home.run("script", "-qec", "hpk up --no-wait", "/dev/null")
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
    pids = set(_pids(home.status()).values())
    listening = set()
    for line in home.run("ss", "-Hltnp").stdout.splitlines():
        if any(f"pid={pid}," in line for pid in pids):
            listening.add(line.split()[3])
    address = home.status()["server"].removeprefix("https://").partition(":")[0]
    assert listening == {
        *(f"{address}:{ports[name]}" for name in ("api", "kubelet", "channel")),
        *(f"127.0.0.1:{ports[name]}" for name in ("etcd", "etcd_peer", "dns")),
    }


def test_a_component_that_dies_comes_back(home: Home) -> None:
    home.run("hpk", "up")
    before = home.status()
    for name in ("kube-apiserver", "kubelet"):
        home.run("kill", "-9", str(_pids(before)[name]))

    def recovered() -> bool:
        done = home.run("hpk", "status", "-o", "json", check=False)
        after = json.loads(done.stdout)
        return after["health"] == "ready" and all(
            _pids(after)[name] != _pids(before)[name] for name in ("kube-apiserver", "kubelet")
        )

    eventually(recovered, what="both components started again")
    assert _pids(home.status())["etcd"] == _pids(before)["etcd"]


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


def _start_job(home: Home) -> int:
    home.run(
        "bash", "-c", 'cd "$1" && hpk up --print-batch-script > hpk-start.sh', "-", home.directory
    )
    submitted = home.run(
        "sbatch", "--parsable", f"--chdir={home.directory}", f"{home.directory}/hpk-start.sh"
    )
    job = int(submitted.stdout)
    eventually(lambda: home.read_json("endpoint.json"), what="endpoint.json")
    return job


def _job_state(home: Home, job: int) -> str:
    done = home.run("sacct", "-nXP", "-j", str(job), "-o", "State").stdout.strip()
    return done.partition(" ")[0]


def test_in_a_job_found_and_stopped_from_the_login_node(home: Home) -> None:
    job = _start_job(home)
    status = eventually(lambda: _ready(home), what="ready in the job")
    assert status is not None
    assert status["job_id"] == job
    assert status["host"] != LOGIN
    again = home.run("hpk", "up")
    assert f"Slurm job {job}" in again.stdout
    assert home.run("kubectl", "get", "--raw", "/readyz").stdout == "ok"
    leaked = _kubelet_slurm_variables(home, status)
    assert leaked == []
    home.run("hpk", "down")
    eventually(lambda: _job_state(home, job) == "COMPLETED", what="the job has ended well")
    assert home.processes(status["host"]) == []


def _ready(home: Home) -> Json | None:
    status: Json = json.loads(home.run("hpk", "status", "-o", "json", check=False).stdout)
    return status if status["health"] == "ready" else None


def _kubelet_slurm_variables(home: Home, status: Json) -> list[str]:
    text = home.run("cat", f"/proc/{_pids(status)['kubelet']}/environ", host=status["host"]).stdout
    names = [entry.partition("=")[0] for entry in text.split("\0")]
    return [
        name for name in names if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
    ]


def test_a_cancelled_job_stops_in_order(home: Home) -> None:
    job = _start_job(home)
    home.run("scancel", str(job))
    eventually(lambda: _job_state(home, job) == "CANCELLED", what="the job has ended")
    eventually(
        lambda: (home.read_json("control-plane/state.json") or {}).get("phase") == "stopped",
        what="stopped in order",
    )
    status = home.status(exit_code=3)
    assert status["problems"] == [], "it released its lock, so it did not die"
    home.run("hpk", "up")  # and another can follow on another host


@pytest.mark.long
def test_one_that_died_on_another_host_is_followed_when_its_heartbeat_stays_out(
    home: Home,
) -> None:
    job = _start_job(home)
    endpoint = home.read_json("endpoint.json")
    assert endpoint is not None
    home.run("kill", "-9", str(endpoint["pid"]), host=endpoint["host"])
    eventually(lambda: _job_state(home, job) not in ("RUNNING", ""), what="the job has ended")
    status = home.status(exit_code=3)
    assert "it died on host" in status["problems"][0]
    up = home.run("hpk", "up")
    assert "has been silent" in up.stderr
    assert home.status()["host"] == LOGIN


def test_jobs_are_kept_or_cancelled_as_the_user_says(home: Home) -> None:
    bystander = home.run(
        "sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600"
    ).stdout.strip()
    try:
        home.run("hpk", "up")
        home.run(
            "kubectl",
            "run",
            "p",
            "--restart=Never",
            "--image=registry.lab:5000/busybox:latest",
            "--",
            "sleep",
            "600",
        )
        eventually(lambda: home.status()["jobs"], timeout_s=90, what="the pod's job")
        kept = home.run("hpk", "down", "--keep-jobs")
        (job,) = home.status(exit_code=3)["jobs"]
        assert str(job["job_id"]) in kept.stdout
        assert "default/p" in kept.stdout
        assert job["state"] in ("PENDING", "CONFIGURING", "RUNNING")

        cancelled = home.run("hpk", "down", "--cancel-jobs")
        assert f"cancelled {job['job_id']}" in cancelled.stdout
        eventually(
            lambda: _job_state(home, job["job_id"]) not in ("RUNNING", "PENDING"),
            what="the pod's job has ended",
        )
        assert _job_state(home, int(bystander)) in ("RUNNING", "PENDING")
    finally:
        home.run("scancel", bystander)


@pytest.mark.parametrize("argv", [("down",), ("down", "--cancel-jobs"), ("down", "--keep-jobs")])
def test_down_when_down_is_no_error(home: Home, argv: Sequence[str]) -> None:
    assert "not up" in home.run("hpk", *argv).stdout


def test_kubeconfig(home: Home) -> None:
    missing = home.run("hpk", "kubeconfig", check=False)
    assert missing.returncode == 1
    assert "try: hpk up" in missing.stderr
    home.run("hpk", "up", "--no-wait")
    assert home.run("hpk", "kubeconfig").stdout.strip() == f"{home.directory}/.hpk/kubeconfig"
    target = f"{home.directory}/config"
    home.run("hpk", "kubeconfig", "--merge", target)
    done = home.run(
        "kubectl", "--kubeconfig", target, "--context", "hpk", "get", "--raw", "/readyz"
    )
    assert done.stdout == "ok"


def test_a_start_that_cannot_work_says_why(home: Home) -> None:
    config = '[control-plane]\naddress = "203.0.113.9"\n'
    home.run("bash", "-c", 'mkdir -p "$HPK_HOME" && cat > "$HPK_HOME/config.toml"', stdin=config)
    done = home.run("hpk", "up", check=False)
    assert done.returncode == 1
    assert "203.0.113.9" in done.stderr
    assert "config.toml" in done.stderr
    assert home.processes() == []
