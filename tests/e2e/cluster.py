"""The means to use a control plane in the lab as its user would."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.waiting import eventually as eventually

Json = dict[str, Any]
FLAGS = "slurm-job.hpk.io/flags"
MPI_FLAGS = "slurm-job.hpk.io/mpi-flags"
RUNTIME = "slurm-job.hpk.io/runtime"
BUSYBOX = "registry.lab:5000/busybox:latest"
API_CLIENT = "registry.lab:5000/api-client:latest"
LAMMPS = "registry.lab:5000/lammps:latest"
ENTRYPOINT = "registry.lab:5000/entrypoint:latest"
POSTGRES = "registry.lab:5000/postgres:latest"
NGINX = "registry.lab:5000/nginx:latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The control plane of one user of the lab, seen from a namespace."""

    machine: Machine
    user: str
    namespace: str = "default"
    hpk_home: str | None = None
    """HPK_HOME, where it is not the default."""

    def _environment(self) -> dict[str, str]:
        home = f"/home/{self.user}/.hpk" if self.hpk_home is None else self.hpk_home
        own = {} if self.hpk_home is None else {"HPK_HOME": home}
        return {**own, "KUBECONFIG": f"{home}/kubeconfig"}

    def run(
        self,
        argv: Sequence[str],
        *,
        host: str = LOGIN,
        user: str | None = None,
        stdin: str | None = None,
        check: bool = True,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the lab as the user."""
        whole = self.machine.argv(
            host,
            argv,
            user=self.machine.lab.user(user or self.user),
            environment=self._environment(),
        )
        done = subprocess.run(
            whole, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if check and done.returncode != 0:
            pytest.fail(f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def start(self, argv: Sequence[str], *, host: str = LOGIN) -> subprocess.Popen[str]:
        """Start a command in the lab as the user; the caller ends it.

        What leads into the lab's namespaces is the parent of the command, which ends with it.
        """
        whole = self.machine.argv(
            host,
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            user=self.machine.lab.user(self.user),
            environment=self._environment(),
        )
        return subprocess.Popen(
            whole,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl in the test's namespace."""
        argv = ["kubectl", "--namespace", self.namespace, *args]
        return self.run(argv, stdin=stdin, check=check, timeout_s=timeout_s)

    def create(self, *objects: Json) -> None:
        """Create objects."""
        whole: Json = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("create", "-f", "-", stdin=json.dumps(whole))

    def get(self, *what: str) -> Json:
        """An object as JSON."""
        answer: Json = json.loads(self.kubectl("get", *what, "-o", "json").stdout)
        return answer

    def wait_phase(self, pod: str, *phases: str, timeout_s: float = 180) -> Json:
        """The Pod, once it is in one of the phases."""

        def look() -> Json | None:
            found = self.kubectl("get", "pod", pod, "-o", "json", check=False)
            if found.returncode != 0:
                return None
            seen: Json = json.loads(found.stdout)
            return seen if seen["status"].get("phase") in phases else None

        try:
            found = eventually(look, timeout_s=timeout_s, what=f"{pod} in {phases}")
        except BaseException:
            print(self.kubectl("describe", "pod", pod, check=False).stdout)
            raise
        assert found is not None
        return found

    def pods(self) -> dict[str, Json]:
        """Every Pod of the namespace by its name."""
        return {item["metadata"]["name"]: item for item in self.get("pods")["items"]}

    def wait_pods(
        self,
        names: Iterable[str],
        is_there: Callable[[Json], bool] | None = None,
        *,
        timeout_s: float = 240,
    ) -> dict[str, Json]:
        """These Pods, once each has ended (or is as ``is_there`` wants it)."""
        wanted, reached = set(names), is_there or has_ended
        found: dict[str, Json] = {}

        def look() -> bool:
            for name, item in self.pods().items():
                if name in wanted and name not in found and reached(item):
                    found[name] = item
            return found.keys() == wanted

        try:
            eventually(look, timeout_s=timeout_s, what="all Pods")
        except BaseException:
            for name in sorted(wanted - found.keys()):
                print(self.kubectl("describe", "pod", name, check=False).stdout)
            raise
        return found

    def events(self, pod: str) -> list[Json]:
        """The Events about a Pod."""
        items: list[Json] = self.get("events", "--field-selector", f"involvedObject.name={pod}")[
            "items"
        ]
        return items

    def logs(self, pod: str, *args: str) -> str:
        """A Pod's log."""
        return self.kubectl("logs", pod, *args).stdout

    def log_bytes(self, pod: str, *args: str) -> bytes:
        """A Pod's log, byte for byte."""
        logs = shlex.join(["kubectl", "--namespace", self.namespace, "logs", pod, *args])
        done = self.run(["bash", "-o", "pipefail", "-c", f"{logs} | base64 -w0"])
        return base64.b64decode(done.stdout)

    def job_ids(self, pod: str) -> list[int]:
        """Every Slurm job that ever carried this Pod's name, by accounting and queue."""
        prefix = f"{self.namespace}/{pod}@"
        queued = self.run(["squeue", "-h", "-a", "-t", "all", "-o", "%i %j"]).stdout
        ended = self.run(["sacct", "-n", "-X", "-P", "-S", "now-1days", "-o", "JobIDRaw,JobName"])
        ids = set()
        for line in [*queued.splitlines(), *ended.stdout.replace("|", " ").splitlines()]:
            job, _, name = line.partition(" ")
            if name.startswith(prefix):
                ids.add(int(job))
        return sorted(ids)

    def accounting(self, job: int, fields: str) -> list[str]:
        """These fields of a job, separated by commas, as sacct tells them."""
        shown = self.run(["sacct", "-n", "-X", "-P", "-j", str(job), "-o", fields]).stdout
        return shown.strip().split("|")

    def wait_job_ended(self, job: int) -> None:
        """Wait until accounting knows of a job's end."""

        def over() -> bool:
            return self.accounting(job, "State")[0] not in ("RUNNING", "PENDING", "COMPLETING")

        eventually(over, what=f"the end of job {job}")

    def kubelet_pid(self) -> int:
        """The kubelet's process on the login node, as the lab's hosts number it."""
        found = self.run(["pgrep", "-u", self.user, "-f", "[-]m kubelet"]).stdout.split()
        assert len(found) == 1, found
        return int(found[0])

    def home(self, *parts: str) -> str:
        """A path in the user's home."""
        return "/".join((f"/home/{self.user}", *parts))

    def read(self, path: str, *, host: str = LOGIN) -> str:
        """A file's text, "" where there is none."""
        done = self.run(["cat", path], host=host, check=False)
        return done.stdout if done.returncode == 0 else ""


def has_ended(found: Json) -> bool:
    """Whether a Pod's phase is terminal."""
    return found["status"].get("phase") in ("Succeeded", "Failed")


def succeeded(found: Json) -> bool:
    """Whether a Pod's only container ended with 0, and the Pod with it."""
    phase: str = found["status"]["phase"]
    return phase == "Succeeded" and terminated(found)["exitCode"] == 0


def main_status(found: Json) -> Json:
    """The status of a Pod's only container."""
    (status,) = found["status"]["containerStatuses"]
    answer: Json = status
    return answer


def terminated(found: Json) -> Json:
    """How a Pod's only container ended."""
    answer: Json = main_status(found)["state"]["terminated"]
    return answer


def pod(
    name: str,
    *command: str,
    image: str = BUSYBOX,
    annotations: Mapping[str, str] | None = None,
    restart_policy: str = "Never",
    resources: Json | None = None,
    spec: Json | None = None,
    container: Json | None = None,
) -> Json:
    """A Pod of one container. A program without a handler for SIGTERM uses up its grace period."""
    main: Json = {"name": "main", "image": image, **(container or {})}
    if command:
        main["command"] = list(command)
    if resources:
        main["resources"] = resources
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {
            "restartPolicy": restart_policy,
            "terminationGracePeriodSeconds": 2,
            "containers": [main],
            **(spec or {}),
        },
    }
