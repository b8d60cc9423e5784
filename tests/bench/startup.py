"""How long a pod takes to start, against the same container started by a bare sbatch script.

All are measured from the start of the user's command to the container's own first instruction,
which reads the kernel's clock (``/proc/uptime``, 10 ms); login node and compute nodes are one
machine, so the clock is one. They alternate, so that a noisy moment hits all, in every order in
turn: how long Slurm lets a job wait depends on what it did just before.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench import stats
from tests.e2e.cluster import BUSYBOX, Cluster, Json, eventually, pod

RUNTIME = "slurm-job.hpk.io/runtime"
RUNTIMES = ("apptainer", "podman")
BARE = "bare"

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


def measure_pod(cluster: Cluster, runtime: str, run: int) -> PodTimes:
    """The same, by kubectl create."""
    name = f"bench-{runtime}-{run}"
    started = boot_now()
    found = run_to_its_end(
        cluster, pod(name, "cat", "/proc/uptime", annotations={RUNTIME: runtime})
    )
    offset = boot_offset()
    running = float(cluster.logs(name).split()[0])
    journal, record = written(cluster, found)
    at = {entry["step"]: entry["at_s"] + offset - started for entry in journal}
    cluster.kubectl("delete", "pod", name, "--wait=false")
    return PodTimes(
        journalled=at["intent"],
        submitted=at["submitted"],
        supervised=record["started_at_s"] + offset - started,
        running=running - started,
    )


def run_to_its_end(
    cluster: Cluster, manifest: Json, *, timeout_s: int = 120, check: bool = True
) -> Json:
    """Create a Pod and wait for it by one watch: asking again and again would take its CPU.

    :param check: fail where it has not succeeded in time.
    """
    name = manifest["metadata"]["name"]
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    condition = "--for=jsonpath={.status.phase}=Succeeded"
    words = ("wait", f"pod/{name}", condition, f"--timeout={timeout_s}s")
    cluster.kubectl(*words, check=check, timeout_s=timeout_s + 10)
    return cluster.get("pod", name)


def written(cluster: Cluster, found: Json) -> tuple[list[Json], Json]:
    """The journal and the last record of a Pod that has ended."""
    root = cluster.home(".hpk", "pods", found["metadata"]["uid"])
    journal = [json.loads(line) for line in cluster.read(f"{root}/journal.jsonl").splitlines()]
    path = f"{root}/attempts/{journal[0]['nonce']}/record.json"
    return journal, json.loads(cluster.read(path))


@contextmanager
def cached_image(cluster: Cluster) -> Iterator[str]:
    """The converted image both sides use: the pod's own, from the cache."""
    cluster.create(pod("bench-warm", "true"))
    found = cluster.wait_phase("bench-warm", "Succeeded", timeout_s=300)
    root = cluster.home(".hpk", "pods", found["metadata"]["uid"], "attempts")
    nonce = cluster.run(["ls", root]).stdout.split()[0]
    spec = json.loads(cluster.read(f"{root}/{nonce}/pod.json"))
    cluster.kubectl("delete", "pod", "bench-warm", "--wait=true")
    yield spec["plan"]["containers"][0]["image"]["path"]


def run(cluster: Cluster, runs: int) -> tuple[list[float], dict[str, list[PodTimes]]]:
    """Alternate them; one round that is not counted comes first."""
    bare: list[float] = []
    pods: dict[str, list[PodTimes]] = {name: [] for name in RUNTIMES}
    orders = itertools.cycle(itertools.permutations((BARE, *RUNTIMES)))
    with cached_image(cluster) as image:
        for number, order in zip(range(runs + 1), orders, strict=False):
            for kind in order:
                if kind == BARE:
                    bare.append(measure_bare(cluster, image, number))
                else:
                    pods[kind].append(measure_pod(cluster, kind, number))
    return bare[1:], {name: times[1:] for name, times in pods.items()}


def report(bare: list[float], pods: Mapping[str, Sequence[PodTimes]]) -> str:
    """The figures as Markdown."""
    whole = {name: [times.running for times in found] for name, found in pods.items()}
    command = BARE_SCRIPT.splitlines()[-1].format(image="IMAGE.sif")
    lines = [
        "## Start-up",
        "",
        f"From the start of the user's command to the container's first instruction, {len(bare)} "
        "runs of each, alternating in every order; seconds.",
        "",
        *stats.HEAD,
        stats.row("bare sbatch, Apptainer", bare),
        *(stats.row(f"pod (kubectl create), {name}", whole[name]) for name in whole),
        "",
        *(
            f"**{name} over bare: {stats.ratio(whole[name], bare)}**; "
            f"{stats.extra(whole[name], bare):+.3f} s in the median of neighbouring runs.  "
            for name in whole
        ),
        "",
        f"The bare job runs `{command}`, with `{BUSYBOX}` converted once; "
        "the pods use the same file.",
        "",
        "Where a pod's time goes (medians; seconds):",
        "",
        f"| from | to | {' | '.join(pods)} |",
        f"|---|---|{'---|' * len(pods)}",
    ]
    steps = [
        ("kubectl create", "intent journalled (API server, watch, admission, plan)", "journalled"),
        ("intent", "sbatch answered", "submitted"),
        ("sbatch answered", "supervisor's first instant (Slurm's wait, Python)", "supervised"),
        ("supervisor", "container's first instruction (claim, bundle, runtime)", "running"),
    ]
    before = ""
    for start, end, field in steps:
        columns = [
            f"{statistics.median(_since(times, before, field) for times in found):.3f}"
            for found in pods.values()
        ]
        lines.append(f"| {start} | {end} | {' | '.join(columns)} |")
        before = field
    return "\n".join(lines)


def _since(times: PodTimes, before: str, field: str) -> float:
    start = float(getattr(times, before)) if before else 0.0
    return float(getattr(times, field)) - start
