"""What HPK costs where it runs: resident memory of each process, and the time `hpk up` takes."""

from __future__ import annotations

import statistics
import time

from tests.e2e.cluster import Cluster, pod

_NAMES = (
    ("kube-apiserver", "kube-apiserver"),
    ("kube-controller-manager", "kube-controller-manager"),
    ("kube-scheduler", "kube-scheduler"),
    ("etcd", "etcd"),
    ("coredns", "coredns"),
    ("kubelet", "kubelet"),
    ("supervising process", "bootstrap.supervise"),
)


def _is_program(argv: list[str], name: str) -> bool:
    """Whether this is the program of that name, or Python running the module of that name."""
    is_module = "-m" in argv[:4] and argv[argv.index("-m") + 1 :][:1] == [name]
    return is_module or argv[0].rpartition("/")[2] == name


def memory(cluster: Cluster) -> str:
    """Resident memory, with one pod running, as Markdown."""
    cluster.create(pod("bench-memory", "sleep", "3600"))
    found = cluster.wait_phase("bench-memory", "Running")
    node = found["status"]["hostIP"]
    host = next(h.name for h in cluster.machine.lab.hosts if h.address == node)
    lines = ["## Resident memory", "", "| process | where | MiB |", "|---|---|---|"]
    rows = cluster.run(["ps", "-u", cluster.user, "-o", "rss=,args="]).stdout.splitlines()
    for title, marker in _NAMES:
        sizes = [int(row.split()[0]) for row in rows if _is_program(row.split()[1:], marker)]
        lines.append(f"| {title} | login node | {max(sizes, default=0) / 1024:.0f} |")
    on_node = cluster.run(["ps", "-u", cluster.user, "-o", "rss=,args="], host=host).stdout
    for row in on_node.splitlines():
        size, _, args = row.strip().partition(" ")
        if ".pyz" in args:
            role = "pod supervisor" if " run " in args else "pod supervisor's child"
            lines.append(f"| {role} | compute node | {int(size) / 1024:.0f} |")
    cluster.kubectl("delete", "pod", "bench-memory", "--grace-period=0", "--force", check=False)
    return "\n".join(lines)


def warm_up(cluster: Cluster, runs: int) -> str:
    """`hpk up` with everything there, until its nodes are Ready."""
    times = []
    for _ in range(runs):
        cluster.run(["hpk", "down", "--keep-jobs"])
        started = time.monotonic()
        cluster.run(["hpk", "up"], timeout_s=180)
        times.append(time.monotonic() - started)
    low, middle, high = min(times), statistics.median(times), max(times)
    return "\n".join(
        [
            "## Warm `hpk up` until the nodes are Ready",
            "",
            f"{runs} runs after `hpk down`: min {low:.1f} s, median {middle:.1f} s, "
            f"max {high:.1f} s (aim: under 15 s).",
        ]
    )
