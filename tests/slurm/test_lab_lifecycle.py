"""A lab comes, breaks, is repaired and goes without a trace, seen from outside.

These tests use a small lab of their own, beside the one that other tests share. The test process
makes itself the reaper of its orphans: whatever a lab's processes do, they stay its descendants,
and a process that is left over is found whatever else runs on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootstrap.lab import cgroups, control
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import DEFAULT_NAME, LOGIN, SWITCH
from tests.labs import small_lab_name
from tests.slurm.conftest import LabUnderTest, eventually

_PR_SET_CHILD_SUBREAPER = 36
_OURS = re.compile(r"hpk|slurm|munge|maria|mysql|registry|spmix|podman|apptainer", re.IGNORECASE)


@dataclass(frozen=True)
class Snapshot:
    """What a lab could leave on the machine."""

    processes: frozenset[int]
    mounts: tuple[str, ...]
    links: tuple[str, ...]
    cgroups: frozenset[str]
    accounts: tuple[str, ...]
    files: frozenset[str]


def take_snapshot(own: str) -> Snapshot:
    """The machine as it is now, but for what belongs to labs of other names."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    hierarchies = cgroups.detect()
    roots = (hierarchies.v2, *hierarchies.v1.values())
    accounts = ("passwd", "group", "shadow", "subuid", "subgid")
    return Snapshot(
        processes=frozenset(descendants()),
        mounts=tuple(mounts()),
        links=tuple(line.split()[1] for line in links.stdout.splitlines()),
        cgroups=frozenset(
            directory
            for root in roots
            for directory, _, _ in os.walk(root)
            if _OURS.search(directory) and not is_other_lab(directory, own)
        ),
        accounts=tuple(Path("/etc", name).read_text() for name in accounts),
        files=frozenset(files(own)),
    )


def mounts() -> Iterator[str]:
    """All but those of other tests, which lie in temporary directories."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        if not line.split()[1].startswith(f"{tempfile.gettempdir()}/"):
            yield line


def files(own: str) -> Iterator[str]:
    """Everything under /run and /var/lib; of /tmp, which others use as well, what looks like us."""
    for root in ("/run", "/var/lib"):
        for directory, names, others in os.walk(root):
            if is_other_lab(directory, own):
                names.clear()
                continue
            paths = (f"{directory}/{name}" for name in (*names, *others))
            yield from (path for path in paths if not is_other_lab(path, own))
    for path in Path("/tmp").iterdir():
        if _OURS.search(path.name) and not is_other_lab(str(path), own):
            yield str(path)


def is_other_lab(path: str, own: str) -> bool:
    return any(part.startswith(DEFAULT_NAME) and part != own for part in Path(path).parts)


def descendants() -> set[int]:
    """Our children and theirs; those that have ended are reaped first."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found: set[int] = set()
    todo = [os.getpid()]
    while todo:
        parent = todo.pop()
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                todo += [int(word) for word in thread.read_text().split()]
        found.add(parent)
    return found - {os.getpid()}


class OwnLab:
    """A lab of two nodes for tests that break it."""

    def __init__(self) -> None:
        self.name = small_lab_name()

    @property
    def machine(self) -> Machine:
        return control.find(self.name)

    @property
    def under_test(self) -> LabUnderTest:
        return LabUnderTest(machine=self.machine)

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "hpk.cli.main", "lab", "--name", self.name, *words]

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.argv(*words), capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        return done

    def up(self) -> str:
        return self.call("up", "--nodes", "2").stdout

    def down(self) -> str:
        return self.call("down").stdout

    def works(self) -> None:
        """A job on both nodes runs to its end."""
        self.under_test.run(LOGIN, "alice", ["srun", "-N2", "hostname"], check=True)
        status = json.loads(self.call("status", "-o", "json").stdout)
        assert all(status["daemons"].values()), status

    def kill(self, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def named(self, host: str, name: str) -> list[int]:
        return [each.pid for each in self.machine.processes(host) if each.name == name]


@pytest.fixture(scope="module", autouse=True)
def orphans_are_ours() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture
def own() -> Iterator[OwnLab]:
    """A lab's name; whatever the test does with it, the machine is as before at the end."""
    lab = OwnLab()
    before = take_snapshot(lab.name)
    yield lab
    lab.down()
    # What was killed is gone when its parent, however remote, has noticed.
    eventually(lambda: descendants() <= before.processes, what="no process is left")
    after = take_snapshot(lab.name)
    assert after.files - before.files == set()
    assert after.cgroups - before.cgroups == set()
    assert after.mounts == before.mounts
    assert after.links == before.links
    assert after.accounts == before.accounts


def test_the_snapshot_would_notice(own: OwnLab) -> None:
    """While a lab is up the snapshot differs in all that is not hidden by namespaces."""
    before = take_snapshot(own.name)
    own.up()
    during = take_snapshot(own.name)
    assert during.processes - before.processes
    assert during.cgroups - before.cgroups
    assert any(own.name in path for path in during.files - before.files)
    assert during.mounts == before.mounts
    assert during.links == before.links


def test_up_twice_and_down_twice(own: OwnLab) -> None:
    assert "the lab is up" in own.up()
    own.works()
    assert "nothing was changed" in own.up()
    assert "the lab is down" in own.down()
    assert "nothing was changed" in own.down()


def test_down_ends_what_users_started(own: OwnLab) -> None:
    own.up()
    run = own.under_test.run
    run(LOGIN, "alice", ["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"], check=True)
    run(LOGIN, "alice", ["sbatch", "-N2", "--wrap", "srun sleep 1000"], check=True)
    shell = subprocess.Popen(
        own.argv("shell", "n1", "--", "sh", "-c", "echo here; exec sleep 1000"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout is not None
    assert shell.stdout.readline() == "here\n"
    own.down()
    assert shell.wait(timeout=30) != 0
    shell.stdout.close()


@pytest.mark.parametrize(
    "victims",
    [
        (LOGIN, "slurmctld"),
        (LOGIN, "slurmdbd"),
        (LOGIN, "mariadbd"),
        (LOGIN, "docker-registry"),
        ("n1", "slurmd"),
        ("n2", "munged"),
        ("n1", ""),
        (LOGIN, ""),
        (SWITCH, ""),
    ],
    ids=lambda victims: "-".join(filter(None, victims)),
)
def test_up_repairs(own: OwnLab, victims: tuple[str, str]) -> None:
    host, name = victims
    own.up()
    pids = own.named(host, name) if name else [own.machine.init_pid(host) or 0]
    assert pids
    assert all(pids)
    own.kill(pids)
    eventually(lambda: not any(map(is_running, pids)), what="the victims are dead")
    assert "the lab is up" in own.up()
    assert "nothing was changed" in own.up()
    own.works()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("seed", [1, 2])
def test_down_after_killing_anything(own: OwnLab, seed: int) -> None:
    own.up()
    hierarchies, lab = own.machine.hierarchies, own.machine.lab
    pids = sorted(cgroups.processes(hierarchies, lab))
    own.kill(random.Random(seed).sample(pids, len(pids) // 3))
    for path in random.Random(seed).sample(sorted(lab.state.iterdir()), 2):
        if path.is_file():
            path.unlink()


def milestones() -> dict[str, Callable[[OwnLab], bool]]:
    """Moments of `up` that can be seen from outside."""

    def state(own: OwnLab) -> Path:
        return own.machine.lab.state

    return {
        "state directory": lambda own: (state(own) / "etc").exists(),
        "record": lambda own: (state(own) / "lab.json").exists(),
        "switch": lambda own: own.machine.init_pid(SWITCH) is not None,
        "some host": lambda own: own.machine.init_pid("n2") is not None,
        "database": lambda own: bool(own.named(LOGIN, "mariadbd")),
        "controller": lambda own: bool(own.named(LOGIN, "slurmctld")),
    }


@pytest.mark.parametrize("moment", milestones())
@pytest.mark.parametrize(
    "then_up", [pytest.param(False, id="down"), pytest.param(True, id="up", marks=pytest.mark.long)]
)
def test_up_killed_half_way(own: OwnLab, moment: str, then_up: bool) -> None:
    reached = milestones()[moment]
    process = subprocess.Popen(
        own.argv("up", "--nodes", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    eventually(lambda: reached(own), what=moment)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it was through before it was killed"
    if then_up:
        own.up()
        own.works()


def test_a_node_that_dies_fails_its_jobs_and_comes_back(own: OwnLab) -> None:
    own.up()
    run = own.under_test.run
    submit = ["sbatch", "--parsable", "--no-requeue", "-w", "n2", "--wrap", "sleep 1000"]
    job = run(LOGIN, "alice", submit, check=True).stdout.strip()

    def state() -> str:
        argv = ["sacct", "-nXP", "-j", job, "-o", "state"]
        return run(LOGIN, "alice", argv, check=True).stdout.strip()

    eventually(lambda: state() == "RUNNING", what="the job runs")
    asyncio.run(control.kill_node(own.machine, "n2"))
    eventually(lambda: state() == "NODE_FAIL", what="Slurm notices")
    asyncio.run(control.start_node(own.machine, "n2"))
    own.works()


def test_the_controller_restarts_and_keeps_its_jobs(own: OwnLab) -> None:
    own.up()
    run = own.under_test.run
    submit = ["sbatch", "--parsable", "--wrap", "sleep 1000"]
    job = run(LOGIN, "alice", submit, check=True).stdout.strip()
    before = own.named(LOGIN, "slurmctld")
    asyncio.run(control.restart_controller(own.machine))
    assert own.named(LOGIN, "slurmctld") != before
    listed = run(LOGIN, "alice", ["squeue", "-h", "-o", "%i"], check=True)
    assert listed.stdout.split() == [job]
