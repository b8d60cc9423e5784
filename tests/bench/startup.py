"""How long a pod takes to start, against the same container started by a bare sbatch script.

Both sides are measured from the start of the user's command to the container's own first
instruction, which reads the kernel's clock (``/proc/uptime``, 10 ms); login node and compute nodes
are one machine, so the clock is one. The two alternate, so that a noisy moment hits both.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.e2e.cluster import BUSYBOX, Cluster, eventually, pod

BARE_SCRIPT = """#!/bin/bash
#SBATCH --output={output}
exec apptainer -q exec --contain --cleanenv --userns {image} cat /proc/uptime
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodTimes:
    """One pod's way, each in seconds since the command's start.

    :param journalled: the kubelet has seen, admitted and planned it, and written its intent.
    :param submitted: sbatch has answered and its id is journalled.
    :param supervised: the supervisor's first own instant.
    :param running: the container's first instruction.
    """

    journalled: float
    submitted: float
    supervised: float
    running: float


def boot_now() -> float:
    """The clock of /proc/uptime."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_offset() -> float:
    """What to add to Unix seconds to get the clock of /proc/uptime."""
    return boot_now() - time.time()


def measure_bare(cluster: Cluster, image: str, run: int) -> float:
    """Seconds from the start of sbatch to the container's first instruction."""
    output = cluster.home(f"bench-{run}.out")
    script = cluster.home(f"bench-{run}.sh")
    cluster.run(["rm", "-f", output])
    text = BARE_SCRIPT.format(output=output, image=image)
    cluster.run(["sh", "-c", 'cat > "$1"', "sh", script], stdin=text)
    started = boot_now()
    cluster.run(["sbatch", script])
    text = eventually(lambda: cluster.read(output).strip(), what="the bare job's output")
    return float(text.split()[0]) - started


def measure_pod(cluster: Cluster, run: int) -> PodTimes:
    """The same, by kubectl create."""
    name = f"bench-{run}"
    manifest = json.dumps(pod(name, "cat", "/proc/uptime"))
    offset = boot_offset()
    started = boot_now()
    cluster.kubectl("create", "-f", "-", stdin=manifest)
    found = cluster.wait_phase(name, "Succeeded")
    running = float(cluster.logs(name).split()[0])
    root = cluster.home(".hpk", "pods", found["metadata"]["uid"])
    entries = [json.loads(line) for line in cluster.read(f"{root}/journal.jsonl").splitlines()]
    at = {entry["step"]: entry["at_s"] + offset - started for entry in entries}
    nonce = entries[0]["nonce"]
    record = json.loads(cluster.read(f"{root}/attempts/{nonce}/record.json"))
    return PodTimes(
        journalled=at["intent"],
        submitted=at["submitted"],
        supervised=record["started_at_s"] + offset - started,
        running=running - started,
    )


@contextmanager
def cached_image(cluster: Cluster) -> Iterator[str]:
    """The converted image both sides use: the pod's own, from the cache."""
    cluster.create(pod("bench-warm", "true"))
    found = cluster.wait_phase("bench-warm", "Succeeded", timeout_s=300)
    root = cluster.home(".hpk", "pods", found["metadata"]["uid"], "attempts")
    nonce = cluster.run(["ls", root]).stdout.split()[0]
    spec = json.loads(cluster.read(f"{root}/{nonce}/pod.json"))
    yield spec["plan"]["containers"][0]["image"]["path"]


def run(cluster: Cluster, runs: int) -> tuple[list[float], list[PodTimes]]:
    """Alternate the two; one round that is not counted comes first."""
    bare, pods = [], []
    with cached_image(cluster) as image:
        for number in range(runs + 1):
            bare_s = measure_bare(cluster, image, number)
            pod_times = measure_pod(cluster, number)
            if number > 0:
                bare.append(bare_s)
                pods.append(pod_times)
    return bare, pods


def report(bare: list[float], pods: list[PodTimes]) -> str:
    """The figures as Markdown."""
    whole = [times.running for times in pods]
    ratio = statistics.median(whole) / statistics.median(bare)
    command = BARE_SCRIPT.splitlines()[-1].format(image="IMAGE.sif")
    lines = [
        "## Start-up",
        "",
        f"From the start of the user's command to the container's first instruction, {len(pods)} "
        "runs of each, alternating; seconds.",
        "",
        "| | min | median | max |",
        "|---|---|---|---|",
        _row("bare sbatch", bare),
        _row("pod (kubectl create)", whole),
        "",
        f"**Ratio of medians: {ratio:.2f}** (aim: below 2 now, 1.3 later).",
        "",
        f"The bare job runs `{command}`, with `{BUSYBOX}` converted once; "
        "the pod uses the same file.",
        "",
        "Where the pod's time goes (medians):",
        "",
        "| from | to | seconds |",
        "|---|---|---|",
    ]
    steps = [
        ("kubectl create", "intent journalled (API server, watch, admission, plan)", "journalled"),
        ("intent", "sbatch answered", "submitted"),
        ("sbatch answered", "supervisor's first instant (Slurm's wait, Python)", "supervised"),
        ("supervisor", "container's first instruction (claim, bundle, Apptainer)", "running"),
    ]
    before = [0.0] * len(pods)
    for start, end, field in steps:
        now = [float(getattr(times, field)) for times in pods]
        delta = statistics.median(b - a for a, b in zip(before, now, strict=True))
        lines.append(f"| {start} | {end} | {delta:.3f} |")
        before = now
    return "\n".join(lines)


def _row(name: str, values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"| {name} | {low:.3f} | {middle:.3f} | {high:.3f} |"
