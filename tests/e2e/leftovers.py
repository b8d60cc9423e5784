"""What pods leave on compute nodes, looked for from outside the product.

Processes are found by the host's cgroup, all else as the host's administrator. What was there
before is somebody else's: only what came since is compared, and named when it does not go.

A job's cgroup counts while a process is in it. An empty one is Slurm's to remove, and Slurm 22.05
does not try again where it found a process in it that was still dying.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import Cluster, eventually

NODES = ("n1", "n2", "n3", "n4")
_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run")
_LOOK = """
find /sys/fs/cgroup /cg -type d -name 'job_*' 2>/dev/null | while read -r job; do
    [ -z "$(find "$job" -name cgroup.procs -exec cat {} + 2>/dev/null)" ] || echo "cgroup $job"
done
find "$@" -user "$USER_ID" -not -name .lock -not -name "hpk-$USER_ID" \\
    -printf 'file %p\\n' 2>/dev/null
for kind in shm sem msg; do
    awk -v uid="$USER_ID" -v kind="$kind" \\
        'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "uid") column = i; next }
         $column == uid { print "sysvipc", kind, $2 }' "/proc/sysvipc/$kind"
done
true
"""
_JOB = re.compile(r"(?:job_|/hpk-\d+/|\(job )(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What came to the nodes since this was made, and has not gone.

    :param before: what was there, by host.
    """

    cluster: Cluster
    before: Mapping[str, frozenset[str]]

    @classmethod
    def since_now(cls, cluster: Cluster, *hosts: str) -> Leftovers:
        """Of these hosts, all compute nodes by default."""
        return cls(
            cluster=cluster,
            before={host: frozenset(_on(cluster, host)) for host in hosts or NODES},
        )

    def on(self, host: str) -> list[str]:
        """What is there now and was not."""
        before = self.before[host]
        jobs = {job for entry in before for job in _JOB.findall(entry)}
        return [
            entry
            for entry in _on(self.cluster, host)
            if entry not in before and not jobs & set(_JOB.findall(entry))
        ]

    def of(self, job: int, host: str) -> list[str]:
        """What is there of one job."""
        return [entry for entry in self.on(host) if str(job) in _JOB.findall(entry)]

    def but_of(self, job: int, host: str) -> list[str]:
        """What is there of anything but one job."""
        return [entry for entry in self.on(host) if str(job) not in _JOB.findall(entry)]

    def wait_none(self, *hosts: str, files: bool = True) -> None:
        """Until nothing is left there; fails with what is.

        :param files: False where only the next job of the user clears up the files.
        """

        def look() -> dict[str, list[str]]:
            found = {host: _but_files(self.on(host), files) for host in hosts or self.before}
            return {host: entries for host, entries in found.items() if entries}

        eventually(look, until=operator.not_, what="nothing is left on the nodes")

    def wait_none_of(self, job: int, host: str, *, files: bool = True) -> None:
        """The same for one job."""
        eventually(
            lambda: _but_files(self.of(job, host), files),
            until=operator.not_,
            what=f"nothing of job {job} is left on {host}",
        )


def _but_files(entries: list[str], files: bool) -> list[str]:
    return [entry for entry in entries if files or not entry.startswith("file ")]


def _on(cluster: Cluster, host: str) -> list[str]:
    """Everything of the user's, or of any job, on a compute node."""
    machine = cluster.machine
    uid = str(machine.lab.user(cluster.user).uid)
    found = []
    for process in machine.processes(host):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            cgroup = Path(f"/proc/{process.pid}/cgroup").read_text()
        except OSError:
            continue
        line = next(item for item in status.splitlines() if item.startswith("Uid:"))
        if uid in line.split():
            job = _JOB.search(cgroup)
            of_job = f" (job {job[1]})" if job else ""
            found.append(f"process {process.pid} {process.name}{of_job}")
    mounts = Path(f"/proc/{machine.init_pid(host)}/mounts").read_text()
    found += [f"mount {item}" for item in mounts.splitlines()]
    argv = ["env", f"USER_ID={uid}", "sh", "-c", _LOOK, "-", *_PLACES]
    return found + cluster.run(argv, host=host, user="root").stdout.splitlines()


def drained(cluster: Cluster) -> str:
    """Slurm's reasons for nodes that it drained or lost; "" where there are none."""
    return cluster.run(["sinfo", "-h", "-R"]).stdout
