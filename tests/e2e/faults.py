"""What tests of crashes and endings need: to look behind the scene, and to break it.

A pod's runs are counted by a witness outside it, whom the container's first instruction tells; what
the kubelet and the supervisor wrote down is read from their files, as a next kubelet would.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import Cluster, Json, eventually

_WITNESS = """
import http.server, sys, threading
gates = set()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        closed = self.path.startswith("/gate/") and self.path[6:] not in gates
        self.send_response(404 if closed else 204)
        self.end_headers()
        print(self.path, flush=True)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Handler)
print(server.server_port, flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
for line in sys.stdin:
    gates.add(line.strip())
"""
_SBATCH = Path(__file__).parent / "faulty_sbatch.sh"


class Witness:
    """Hears of every run of a container, and lets containers wait at gates."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._lines: list[str] = []
        assert process.stdout is not None
        assert process.stdin is not None
        self._stdin = process.stdin
        self.url = f"http://{address}:{process.stdout.readline().strip()}"
        self._thread = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._thread.start()

    def _read(self, stream: Iterator[str]) -> None:
        for line in stream:
            self._lines.append(line.strip())

    def tell(self, word: str) -> str:
        """Shell text that tells the witness a word."""
        return f"wget -q -O /dev/null {self.url}/{word}"

    def wait_at_gate(self, name: str) -> str:
        """Shell text that goes on once the gate of this name is open."""
        gate = f"wget -q -O /dev/null {self.url}/gate/{name} 2>/dev/null"
        return f"until {gate}; do sleep 0.2; done"

    def open_gate(self, name: str) -> None:
        """Let whoever waits at this gate go on."""
        self._stdin.write(f"{name}\n")
        self._stdin.flush()

    def count(self, word: str) -> int:
        """How often the word was said."""
        return self._lines.count(f"/{word}")


@contextlib.contextmanager
def witness_in(cluster: Cluster) -> Iterator[Witness]:
    """A witness on the login node, for as long as the block runs."""
    lab = cluster.machine.lab
    argv = cluster.machine.argv(
        LOGIN,
        ["python3", "-I", "-c", _WITNESS, lab.login.address],
        user=lab.user(cluster.user),
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Witness(server, lab.login.address)
        assert server.stdin is not None
        server.stdin.close()
        server.wait(timeout=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFiles:
    """What kubelet and supervisor wrote of one Pod, read as its user."""

    cluster: Cluster
    uid: str

    @classmethod
    def of(cls, cluster: Cluster, pod: str) -> PodFiles:
        """Of a Pod that exists."""
        return cls(cluster=cluster, uid=cluster.get("pod", pod)["metadata"]["uid"])

    @property
    def root(self) -> str:
        """The Pod's directory."""
        return self.cluster.home(".hpk/pods", self.uid)

    @property
    def exists(self) -> bool:
        """Whether the Pod's directory is there."""
        return self.cluster.run(["test", "-e", self.root], check=False).returncode == 0

    def journal(self) -> list[Json]:
        """The journal's entries."""
        lines = self.cluster.read(f"{self.root}/journal.jsonl").splitlines()
        return [json.loads(line) for line in lines]

    def steps(self) -> list[str]:
        """The kinds of the journal's entries."""
        return [entry["step"] for entry in self.journal()]

    def job_id(self) -> int:
        """The newest job id that was journalled, once there is one."""

        def look() -> int:
            placed = [entry["placement"] for entry in self.journal() if "placement" in entry]
            ids = [placement["job_id"] for placement in placed]
            return ids[-1] if ids else 0

        return eventually(look, what="a journalled job id")

    def attempts(self) -> list[str]:
        """The directories of the attempts."""
        found = self.cluster.run(["ls", f"{self.root}/attempts"], check=False)
        return [f"{self.root}/attempts/{name}" for name in found.stdout.split()]

    def claims(self) -> list[str]:
        """Every claim that was taken."""
        texts = [self.cluster.read(f"{attempt}/claim") for attempt in self.attempts()]
        return [text.strip() for text in texts if text]

    def record(self) -> Json | None:
        """The record of the newest attempt that has one."""
        for attempt in reversed(self.attempts()):
            text = self.cluster.read(f"{attempt}/record.json")
            if text:
                found: Json = json.loads(text)
                return found
        return None

    def wait_record(self, phase: str, *, timeout_s: float = 60) -> Json:
        """The record on the disk, once it is of this phase."""

        def look() -> Json | None:
            record = self.record()
            return record if record is not None and record["phase"] == phase else None

        found = eventually(look, timeout_s=timeout_s, what=f"a record that is {phase}")
        assert found is not None
        return found


def signal(cluster: Cluster, pid: int, name: str, *, host: str = LOGIN) -> None:
    """Send a signal to a process of a host of the lab, as its administrator."""
    cluster.run(["kill", f"-{name}", str(pid)], host=host, user="root")


def processes(cluster: Cluster, pattern: str, *, host: str) -> list[int]:
    """Processes of the user whose command line matches, as the host numbers them."""
    found = cluster.run(
        ["pgrep", "-u", cluster.user, "-f", pattern], host=host, user="root", check=False
    )
    return [int(word) for word in found.stdout.split()]


def wait_other_kubelet(cluster: Cluster, old: int) -> int:
    """The kubelet that took the place of a killed one."""

    def look() -> int:
        return next(
            (pid for pid in processes(cluster, "[-]m kubelet", host=LOGIN) if pid != old), 0
        )

    return eventually(look, what="a new kubelet")


@contextlib.contextmanager
def frozen(cluster: Cluster, pid: int) -> Iterator[Callable[[], None]]:
    """A process of the login node, stopped; what is yielded kills it, the end lets it go on."""
    signal(cluster, pid, "STOP")
    killed = False

    def kill() -> None:
        nonlocal killed
        killed = True
        signal(cluster, pid, "KILL")

    try:
        yield kill
    finally:
        if not killed:
            signal(cluster, pid, "CONT")


@contextlib.contextmanager
def held_lock(cluster: Cluster, path: str) -> Iterator[None]:
    """A lock on a file of the user's, held by a process on the login node while the block runs."""
    argv = cluster.machine.argv(
        LOGIN,
        ["flock", path, "sh", "-c", "echo held; exec cat"],
        user=cluster.machine.lab.user(cluster.user),
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline().strip() == "held"
        try:
            yield
        finally:
            holder.stdin.close()
            holder.wait(timeout=30)


class FaultySbatch:
    """The sbatch that can kill the kubelet, in a directory of the user's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.directory = cluster.home("faults")

    def install(self) -> None:
        """Put it where a control plane started with this directory on its PATH finds it."""
        self._cluster.run(["mkdir", "-p", self.directory])
        target = f"{self.directory}/sbatch"
        self._cluster.run(["tee", target], stdin=_SBATCH.read_text())
        self._cluster.run(["chmod", "755", target])

    def remove(self) -> None:
        """Take it away."""
        self._cluster.run(["rm", "-rf", self.directory])

    def arm(self, point: str) -> None:
        """Let the next submission hit this point."""
        self._cluster.run(["rm", "-f", f"{self.directory}/hit"])
        self._cluster.run(["tee", f"{self.directory}/armed.new"], stdin=point)
        self._cluster.run(["mv", f"{self.directory}/armed.new", f"{self.directory}/armed"])

    def wait_hit(self) -> str:
        """What it did, once it did: ``POINT PID``."""
        return eventually(
            lambda: self._cluster.read(f"{self.directory}/hit").strip(),
            what="the submission that kills the kubelet",
        )


def node_of(cluster: Cluster, job: int) -> str:
    """The node on which a job runs."""
    return cluster.run(["squeue", "-h", "-j", str(job), "-o", "%N"]).stdout.strip()


def terminated(pod: Json) -> Json:
    """``state.terminated`` of a Pod's only container."""
    found: Json = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return found
