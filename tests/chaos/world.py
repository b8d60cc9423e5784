"""The lab under chaos: who runs where, what was really killed, and what the containers noted.

Nothing in here fails when the lab is broken: that is what it is for.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.chaos.home import Home
from tests.e2e.cluster import Cluster

NOTES_DIR = "/home/chaos"
"""Where containers write what they did: on a shared disk that no fault touches."""

_WORDS = 4
_SUBMITTED = re.compile(r"pod submitted pod=\S+ uid=(\S+) job=(\d+)")
_JOB_CGROUP = re.compile(r"/job_(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of the user's on a host of the lab.

    :param pid: as this machine numbers it.
    :param job: the Slurm job it belongs to, None outside jobs.
    """

    host: str
    pid: int
    argv: tuple[str, ...]
    job: int | None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal it, unless it has gone meanwhile."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclass(kw_only=True)
class World:
    """Everything a fault may touch.

    :param rng: what a fault chooses by; each is given its own.
    :param victims: UIDs of Pods whose job a fault has really killed: these may fail.
    """

    machine: Machine
    cluster: Cluster
    home: Home
    rng: random.Random = field(default_factory=random.Random)
    victims: set[str] = field(default_factory=set)

    @property
    def compute(self) -> list[str]:
        """The compute nodes."""
        return [host.name for host in self.machine.lab.compute]

    def user_processes(self, *hosts: str) -> list[Process]:
        """The user's processes on these hosts, in a stable order."""
        uid = str(self.machine.lab.user(self.cluster.user).uid)
        found = []
        for host in hosts:
            for process in self.machine.processes(host):
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    uids = _uids(status)
                    if uids[0] != uid:
                        continue
                    argv = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")[:-1]
                    job = _JOB_CGROUP.search(Path(f"/proc/{process.pid}/cgroup").read_text())
                    found.append(
                        Process(
                            host=host,
                            pid=process.pid,
                            argv=tuple(argv),
                            job=int(job[1]) if job else None,
                        )
                    )
        return sorted(found, key=lambda p: (p.host, p.argv, p.pid))

    def components(self) -> dict[str, Process]:
        """The processes of the control plane by their names."""
        found = {}
        for process in self.user_processes(LOGIN):
            if process.job is None and process.argv:
                found[_component(process.argv)] = process
        found.pop("", None)
        return found

    def supervisors(self) -> list[Process]:
        """The pods' supervisors: in each job the process of the zipapp that was started first."""
        first: dict[int, Process] = {}
        for process in self.user_processes(*self.compute):
            if process.job is not None and any(word.endswith(".pyz") for word in process.argv):
                known = first.get(process.job)
                if known is None or process.pid < known.pid:
                    first[process.job] = process
        return [first[job] for job in sorted(first)]

    def kills(self, *jobs: int) -> None:
        """Note that these jobs are killed for real, before it is done."""
        pods = self.machine.lab.home / self.cluster.user / ".hpk" / "pods"
        for journal in pods.glob("*/journal*"):
            with contextlib.suppress(OSError):
                if not set(jobs).isdisjoint(_placed(journal.read_text(errors="replace"))):
                    self.victims.add(journal.parent.name)

    def jobs(self, *states: str) -> list[int]:
        """The user's jobs in these states, as squeue tells them; none where it does not answer."""
        argv = ["squeue", "-h", "-a", "-o", "%i", "-u", self.cluster.user]
        done = self.admin([*argv, "-t", ",".join(states)])
        return sorted(int(word) for word in done.stdout.split() if word.isdigit())

    def jobs_on(self, host: str) -> list[int]:
        """The user's jobs with a process on a host."""
        return sorted({p.job for p in self.user_processes(host) if p.job is not None})

    def admin(
        self, argv: Sequence[str], *, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the site's administrator; what it ends with is not checked."""
        return _tolerant(self.cluster, argv, user="root", timeout_s=timeout_s)

    def user(
        self, argv: Sequence[str], *, timeout_s: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user; what it ends with is not checked."""
        return _tolerant(
            self.cluster, argv, user=self.cluster.user, timeout_s=timeout_s, stdin=stdin
        )

    def note_reused_jobs(self) -> None:
        """Excuse the Pods whose job's id another Pod's had: a controller that came back from older
        state gives ids again, cancels one of the two jobs and takes accounting of one for both."""
        of_job: dict[str, set[str]] = defaultdict(set)
        logs = self.machine.lab.home / self.cluster.user / ".hpk/logs"
        for path in logs.glob("kubelet.log*"):
            for uid, job in _SUBMITTED.findall(path.read_text(errors="replace")):
                of_job[job].add(uid)
        for uids in of_job.values():
            if len(uids) > 1:
                self.victims |= uids

    def notes(self) -> list[list[str]]:
        """The lines that containers wrote, as words; not those whose writer was killed half-way."""
        path = self.machine.lab.home / Path(NOTES_DIR).name / "notes"
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split() for line in path.read_text().splitlines()]
            return [words for words in lines if len(words) == _WORDS]
        return []


def _placed(journal: str) -> Iterator[int]:
    """The Slurm jobs that a Pod's journal tells of."""
    for line in journal.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            yield json.loads(line)["placement"]["job_id"]


def _uids(status: str) -> list[str]:
    return next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]


def _tolerant(
    cluster: Cluster, argv: Sequence[str], *, user: str, timeout_s: float, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return cluster.run(argv, user=user, check=False, timeout_s=timeout_s, stdin=stdin)
    except (subprocess.TimeoutExpired, OSError) as error:
        return subprocess.CompletedProcess(list(argv), 124, "", str(error))


def _component(argv: Sequence[str]) -> str:
    """What a process of the login node is to the control plane, "" for nothing of it."""
    if "-m" in argv[:4]:
        module = argv[argv.index("-m") + 1]
        return module if module in ("kubelet", "bootstrap.supervise") else ""
    name = Path(argv[0]).name
    known = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
    return name if name in known else ""
