"""Who takes processor time and memory: every process of the lab by its program, and the lab whole.

Read from this machine's /proc and cgroups, so that looking costs the lab nothing. What a process's
ended children took counts as its own: a kubelet's are sbatch and squeue.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bootstrap.lab import cgroups
from bootstrap.lab.hosts import Machine

KUBELET, API_SERVER = "kubelet", "kube-apiserver"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_MODULES = {"kubelet": KUBELET, "bootstrap.supervise": "supervise"}
_OURS = (API_SERVER, "etcd", "kube-controller-manager", "kube-scheduler", "coredns")
_SLURM = ("slurmctld", "slurmdbd", "mariadbd", "slurmd", "slurmstepd", "munged")
_SETTLED_SHARE = 0.15
_SETTLED_S = 6.0
"""Longer than the kubelet's polls are apart, which it goes on with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the living processes of one program have taken.

    :param cpu_s: processor seconds of their own.
    :param children_s: of their children that ended.
    :param rss_mib: resident memory.
    """

    pids: tuple[int, ...] = ()
    cpu_s: float = 0.0
    children_s: float = 0.0
    rss_mib: float = 0.0


def look(machine: Machine) -> dict[str, Usage]:
    """Every program that has a name here."""
    found: dict[str, Usage] = {}
    for pid in cgroups.processes(machine.hierarchies, machine.lab):
        with contextlib.suppress(OSError):
            if name := _program(pid):
                found[name] = _sum(found.get(name, Usage()), pid)
    return found


def _program(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    argv = [word.decode(errors="replace") for word in words]
    if "-m" in argv[:5]:
        return _MODULES.get(argv[argv.index("-m") + 1], "")
    name = argv[0].rpartition("/")[2]
    return name if name in (*_OURS, *_SLURM) else ""


def _sum(so_far: Usage, pid: int) -> Usage:
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own, children = int(stat[11]) + int(stat[12]), int(stat[13]) + int(stat[14])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(
        pids=(*so_far.pids, pid),
        cpu_s=so_far.cpu_s + own * _TICK_S,
        children_s=so_far.children_s + children * _TICK_S,
        rss_mib=so_far.rss_mib + pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
    )


def lab_cpu_s(machine: Machine) -> float:
    """Processor seconds of everything that ever ran in the lab."""
    text = (machine.hierarchies.v2 / machine.lab.name / "cpu.stat").read_text()
    fields = dict(line.split() for line in text.splitlines())
    return int(fields["usage_usec"]) / 1e6


def cpu_ms_each(before: Mapping[str, Usage], after: Mapping[str, Usage], count: int) -> Cpu:
    """Processor milliseconds for each of ``count`` pods, by program, its children's apart."""
    found = {}
    for name, now in after.items():
        then = before.get(name, Usage())
        if then.pids != now.pids:
            continue  # began or ended meanwhile: no difference to take
        found[name] = (now.cpu_s - then.cpu_s) * 1000 / count
        if (children := (now.children_s - then.children_s) * 1000 / count) >= 0.05:
            found[f"{name}'s children"] = children
    return dict(sorted(found.items(), key=lambda item: -item[1]))


Cpu = dict[str, float]


def settle(machine: Machine, name: str = KUBELET, *, timeout_s: float = 600) -> float:
    """Wait until a program has nothing to do any more.

    :returns: when that began, on the monotonic clock.
    """
    deadline = time.monotonic() + timeout_s
    seen: list[tuple[float, float]] = []
    while time.monotonic() < deadline:
        now, cpu_s = time.monotonic(), _cpu_of(machine, name)
        if cpu_s is None or (seen and cpu_s < seen[-1][1]):
            seen = []  # it ended, and perhaps another one began
        if cpu_s is not None:
            seen.append((now, cpu_s))
        while len(seen) > 1 and now - seen[1][0] >= _SETTLED_S:
            del seen[0]
        span_s = now - seen[0][0] if seen else 0.0
        if span_s >= _SETTLED_S and (cpu_s or 0.0) - seen[0][1] < _SETTLED_SHARE * span_s:
            return seen[0][0]
        time.sleep(0.5)
    raise TimeoutError(f"{name} is still busy after {timeout_s:g} s")


def _cpu_of(machine: Machine, name: str) -> float | None:
    found = look(machine).get(name)
    return found.cpu_s + found.children_s if found else None


def wait(is_so: Callable[[], object], what: str, *, pause_s: float, timeout_s: float) -> float:
    """Wait for it; the moment it was seen, on the monotonic clock."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {timeout_s:g} s: {what}")
        time.sleep(pause_s)
    return time.monotonic()
