"""Pods that run: as many as the lab has slots for, and many short ones against bare jobs."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass

from tests.bench import usage
from tests.bench.scale.lab import ask, queued, start_anew, wait_queue_empty
from tests.bench.startup import cached_image
from tests.bench.usage import API_SERVER, KUBELET, lab_cpu_s, look, settle, wait
from tests.e2e.cluster import BUSYBOX, Cluster, Json, pod

SHORT, SHORT_AT_ONCE = 150, 50
_EXEC = "apptainer -q exec --contain --cleanenv --userns IMAGE"
BARE_SHORT = f"""#!/bin/bash
# COUNT jobs that run true in the image, by eight loops at once: COUNT
set -euo pipefail
submit() {{
    for _ in $(seq "$1"); do
        sbatch --output=/dev/null --wrap '{_EXEC} true' > /dev/null
    done
}}
for loop in $(seq 8); do
    submit $((($1 + loop - 1) / 8)) &
done
wait
"""
BARE_START = f"""#!/bin/bash
#SBATCH --output=OUTPUT
cat /proc/uptime
exec {_EXEC} cat /proc/uptime
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """``count`` pods at the same time, each with an open channel to the kubelet.

    :param started_s: from the first creation until all are Running.
    :param kubelet_kib: of memory, for each.
    :param idle_share: of one processor; of the kubelet.
    """

    count: int
    started_s: float
    kubelet_kib: float
    api_kib: float
    idle_share: float
    cpu_ms: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Short:
    """``count`` containers of ``true``: a Job's, and bare jobs that call Apptainer.

    :param seconds: from the user's command to the last one's end.
    :param cpu_s: of everything in the lab, for each.
    """

    count: int
    seconds: float
    bare_seconds: float
    cpu_s: float
    bare_cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Pods and bare jobs started one after the other, in turn; seconds.

    :param pod: from a Pod's creation until a watch shows all its containers running.
    :param pod_slurm: of these, Slurm's own wait, from sbatch's answer to the job's first program.
    :param bare: from sbatch's start to the container's first instruction.
    """

    pod: list[float]
    pod_slurm: list[float]
    bare: list[float]
    bare_slurm: list[float]


def run_many(cluster: Cluster, count: int) -> Running:
    """Start them, look, and delete them again."""
    machine = cluster.machine
    start_anew(cluster)
    before = look(machine)
    manifest = pod("run", "sleep", "1000000")
    began = ask(cluster, "create", name="run", count=count, manifest=manifest)["began"]
    ready = wait(
        lambda: _phases(cluster).count("Running") == count,
        f"{count} running pods",
        pause_s=1.0,
        timeout_s=600 + count,
    )
    settle(machine)
    after, at = look(machine), time.monotonic()
    time.sleep(30)
    idle_ms = usage.cpu_ms_each(after, look(machine), 1)[KUBELET]
    share = idle_ms / (time.monotonic() - at) / 1000
    cluster.kubectl("delete", "pods", "--all", "--force", "--grace-period=0", timeout_s=600)
    wait_queue_empty(cluster)
    return Running(
        count=count,
        started_s=ready - began,
        kubelet_kib=(after[KUBELET].rss_mib - before[KUBELET].rss_mib) * 1024 / count,
        api_kib=(after[API_SERVER].rss_mib - before[API_SERVER].rss_mib) * 1024 / count,
        idle_share=share,
        cpu_ms=usage.cpu_ms_each(before, after, count),
    )


def _phases(cluster: Cluster) -> list[str]:
    words = ("get", "pods", "--no-headers", "-o", "custom-columns=P:.status.phase")
    return cluster.kubectl(*words).stdout.split()


def run_short(cluster: Cluster, count: int = SHORT) -> Short:
    """The Job first; its image is there already."""
    machine = cluster.machine
    with cached_image(cluster) as image:
        settle(machine)
        cpu, began = lab_cpu_s(machine), time.monotonic()
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(_job(count)))
        words = ("wait", "job/short", "--for=condition=complete", "--timeout=900s")
        cluster.kubectl(*words, timeout_s=920)
        seconds = time.monotonic() - began
        settle(machine)
        cpu_s = lab_cpu_s(machine) - cpu
        cluster.kubectl("delete", "job", "short", "--wait=true", timeout_s=300)
        wait_queue_empty(cluster)
        settle(machine)
        bare_cpu, began = lab_cpu_s(machine), time.monotonic()
        script = BARE_SHORT.replace("IMAGE", image)
        cluster.run(["bash", "-s", str(count)], stdin=script, timeout_s=600)
        ended = wait(lambda: queued(cluster) == 0, "no jobs", pause_s=0.2, timeout_s=900)
        return Short(
            count=count,
            seconds=seconds,
            bare_seconds=ended - began,
            cpu_s=cpu_s / count,
            bare_cpu_s=(lab_cpu_s(machine) - bare_cpu) / count,
        )


def _job(count: int) -> Json:
    template = pod("short", "true", image=BUSYBOX)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "short"},
        "spec": {
            "completions": count,
            "parallelism": min(SHORT_AT_ONCE, count),
            "template": {"spec": template["spec"]},
        },
    }


def run_starts(cluster: Cluster, count: int) -> Starts:
    """One after the other, in turn; the first of each is not counted."""
    with cached_image(cluster) as image:
        answer = ask(
            cluster,
            "starts",
            name="start",
            count=count + 1,
            manifest=pod("start", "sleep", "1000000"),
            script=BARE_START.replace("IMAGE", image),
        )
    pods, bare = answer["pods"][1:], answer["bare"][1:]
    return Starts(
        pod=[each["seconds"] for each in pods],
        pod_slurm=[each["slurm"] for each in pods],
        bare=[each["seconds"] for each in bare],
        bare_slurm=[each["slurm"] for each in bare],
    )


def percentile(values: list[float], percent: int) -> float:
    """By the nearest rank, so that it is one of the values."""
    ordered = sorted(values)
    rank = max(1, -(-percent * len(ordered) // 100))
    return ordered[rank - 1]


def median(values: list[float]) -> float:
    """The middle."""
    return statistics.median(values)
