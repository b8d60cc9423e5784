"""Users of the lab with control planes of their own: a home for each test, removed in the end."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN

Json = dict[str, Any]


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


def component_pids(status: Json) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in status["components"]}


def job_state(home: Home, job: int) -> str:
    done = home.run("sacct", "-nXP", "-j", str(job), "-o", "State").stdout.strip()
    return done.partition(" ")[0]
