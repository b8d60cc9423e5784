"""Many pods in Slurm's queue: how fast they get there, what they cost, how fast they go.

Against as many bare jobs of the same run: a loop of sbatch, and eight such loops at once.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from tests.bench import usage
from tests.bench.scale.lab import (
    api_requests,
    ask,
    held_pod,
    pods_there,
    queued,
    requests_each,
    start_anew,
    submitted,
    wait_queue_empty,
)
from tests.bench.usage import API_SERVER, KUBELET, Usage, look, settle, wait
from tests.e2e.cluster import Cluster

_IDLE_S = 60.0
BARE = """#!/bin/bash
# COUNT jobs that stay in the queue, by so many loops at once: COUNT LOOPS
set -euo pipefail
submit() {
    for _ in $(seq "$1"); do
        sbatch --hold --output=/dev/null --wrap true > /dev/null
    done
}
for _ in $(seq "$2"); do
    submit $(($1 / $2)) &
done
wait
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One measurement of ``count`` held pods.

    :param created_per_s: by eight creators at once, as the API server took them.
    :param submitted_per_s: from the first creation to slurmctld's count of the last job.
    :param cpu_ms: a pod's, from its creation until the kubelet has nothing more to do, by program.
    :param kubelet_kib: of memory, for a held pod; api_kib the same.
    :param idle_share: of one processor, with all of them held; api_idle_share the same.
    :param restart_s: from the kubelet's end until a new Pod was submitted and all was quiet.
    :param requests: to the API server for each pod, all clients' together; delete_requests alike.
    :param deleted_per_s: from one request for all to the last job's and Pod's end.
    :param api_after_mib: memory of the API server when all were deleted.
    """

    count: int
    created_per_s: float
    submitted_per_s: float
    bare_one_per_s: float
    bare_eight_per_s: float
    cpu_ms: dict[str, float]
    kubelet_mib: float
    kubelet_kib: float
    api_mib: float
    api_kib: float
    api_after_mib: float
    idle_share: float
    api_idle_share: float
    restart_s: float
    restart_first_s: float
    deleted_per_s: float
    delete_cpu_ms: dict[str, float]
    requests: dict[str, float]
    delete_requests: dict[str, float]


def run(cluster: Cluster, count: int) -> Held:
    """Measure; the namespace and the queue are empty before and after."""
    machine = cluster.machine
    start_anew(cluster)
    before, before_jobs, asked = look(machine), submitted(cluster), api_requests(cluster)
    made = ask(cluster, "create", name="held", count=count, manifest=held_pod())
    all_in = wait(
        lambda: submitted(cluster) >= before_jobs + count,
        f"{count} jobs",
        pause_s=0.2,
        timeout_s=60 + count,
    )
    settle(machine)
    after, all_asked = look(machine), api_requests(cluster)
    idle, api_idle = _idle(cluster)
    first_s, restart_s = _restart(cluster)
    before_end = api_requests(cluster)
    deleted_s, delete_cpu = _delete(cluster, count + 1)
    emptied, end_asked = look(machine), api_requests(cluster)
    one, eight = _bare(cluster, count, 1), _bare(cluster, count, 8)
    return Held(
        count=count,
        created_per_s=count / made["seconds"],
        submitted_per_s=count / (all_in - made["began"]),
        bare_one_per_s=one,
        bare_eight_per_s=eight,
        cpu_ms=usage.cpu_ms_each(before, after, count),
        kubelet_mib=after[KUBELET].rss_mib,
        kubelet_kib=_kib(before, after, KUBELET, count),
        api_mib=after[API_SERVER].rss_mib,
        api_kib=_kib(before, after, API_SERVER, count),
        api_after_mib=emptied[API_SERVER].rss_mib,
        idle_share=idle,
        api_idle_share=api_idle,
        restart_s=restart_s,
        restart_first_s=first_s,
        deleted_per_s=(count + 1) / deleted_s,
        delete_cpu_ms=delete_cpu,
        requests=requests_each(asked, all_asked, count),
        delete_requests=requests_each(before_end, end_asked, count),
    )


def _kib(before: dict[str, Usage], after: dict[str, Usage], name: str, count: int) -> float:
    return (after[name].rss_mib - before[name].rss_mib) * 1024 / count


def _idle(cluster: Cluster) -> tuple[float, float]:
    """Share of one processor that the kubelet, its children included, and the API server take."""
    before, began = look(cluster.machine), time.monotonic()
    time.sleep(_IDLE_S)
    cpu = usage.cpu_ms_each(before, look(cluster.machine), 1)
    elapsed_ms = (time.monotonic() - began) * 1000
    kubelet = cpu[KUBELET] + cpu.get(f"{KUBELET}'s children", 0.0)
    return kubelet / elapsed_ms, cpu[API_SERVER] / elapsed_ms


def _restart(cluster: Cluster) -> tuple[float, float]:
    """End the kubelet; what supervises it starts another. Seconds until a Pod made meanwhile was
    submitted, and until the new kubelet had nothing to do any more."""
    machine = cluster.machine
    (pid,) = look(machine)[KUBELET].pids
    before_jobs, began = submitted(cluster), time.monotonic()
    os.kill(pid, signal.SIGTERM)
    ask(cluster, "create", name="new", count=1, manifest=held_pod())
    first = wait(lambda: submitted(cluster) > before_jobs, "a job", pause_s=0.2, timeout_s=600)
    return first - began, max(first, settle(machine)) - began


def _delete(cluster: Cluster, count: int) -> tuple[float, dict[str, float]]:
    before = look(cluster.machine)
    began = ask(cluster, "delete")["began"]
    wait_queue_empty(cluster)
    ended = wait(lambda: pods_there(cluster) == 0, "no Pods", pause_s=0.3, timeout_s=600 + count)
    settle(cluster.machine)
    return ended - began, usage.cpu_ms_each(before, look(cluster.machine), count)


def _bare(cluster: Cluster, count: int, loops: int) -> float:
    """Bare jobs a second."""
    whole = count // loops * loops
    began = time.monotonic()
    cluster.run(["bash", "-s", str(whole), str(loops)], stdin=BARE, timeout_s=600 + count)
    took = time.monotonic() - began
    if queued(cluster) != whole:
        raise RuntimeError(f"{queued(cluster)} jobs in the queue instead of {whole}")
    cluster.run(["scancel", "--me"], timeout_s=600)
    wait_queue_empty(cluster)
    return whole / took
