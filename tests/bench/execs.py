"""`kubectl exec POD -- true`, against `srun --overlap` into its job and the runtime's own exec.

They alternate. What starting a program in the lab costs is in all of them, and what starting
kubectl costs is measured by `kubectl version --client`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from tests.bench import stats
from tests.bench.startup import RUNTIME, RUNTIMES
from tests.e2e.cluster import Cluster, pod

_INSTANCE = "hpk-bench"
_NOTHING, _KUBECTL, _SRUN, _APPTAINER = (
    "true",
    "kubectl version",
    "srun --overlap",
    "apptainer exec",
)
_AIM_S = 0.05


def run(cluster: Cluster, image: str, runs: int) -> dict[str, list[float]]:
    """Seconds of each way; one round that is not counted comes first.

    :param image: the converted image of the Pods.
    """
    names = {runtime: f"bench-exec-{runtime}" for runtime in RUNTIMES}
    for runtime, name in names.items():
        cluster.create(pod(name, "sleep", "3600", annotations={RUNTIME: runtime}))
    for name in names.values():
        cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=180s")
    (job,) = cluster.job_ids(names[RUNTIMES[0]])
    ways = {
        _NOTHING: ["true"],
        _KUBECTL: ["kubectl", "version", "--client"],
        _SRUN: ["srun", "--overlap", f"--jobid={job}", "true"],
        _APPTAINER: ["apptainer", "-q", "exec", f"instance://{_INSTANCE}", "true"],
    }
    for runtime, name in names.items():
        ways[f"kubectl exec, {runtime}"] = ["kubectl", "exec", name, "-n", cluster.namespace]
        ways[f"kubectl exec, {runtime}"] += ["--", "true"]
    cluster.run(["apptainer", "-q", "instance", "start", "--userns", image, _INSTANCE])
    try:
        rounds = [
            {way: _seconds(cluster, argv) for way, argv in ways.items()} for _ in range(runs + 1)
        ]
    finally:
        cluster.run(["apptainer", "-q", "instance", "stop", _INSTANCE])
        cluster.kubectl("delete", "pod", *names.values(), "--wait=true")
    return {way: [one[way] for one in rounds[1:]] for way in ways}


def _seconds(cluster: Cluster, argv: Sequence[str]) -> float:
    started = time.monotonic()
    cluster.run(argv)
    return time.monotonic() - started


def report(times: dict[str, list[float]]) -> str:
    """As Markdown."""
    lines = ["## Exec: the round trip of `true`, seconds", "", *stats.HEAD]
    lines += [stats.row(way, values) for way, values in times.items()]
    nothing = statistics.median(times[_NOTHING])
    best = min(statistics.median(times[way]) for way in (_SRUN, _APPTAINER)) - nothing
    for runtime in RUNTIMES:
        own = stats.extra(times[f"kubectl exec, {runtime}"], times[_KUBECTL])
        lines += [
            "",
            f"{runtime}: {own * 1000:.0f} ms beyond the start of kubectl, "
            f"{(own - best) * 1000:+.0f} ms against the better of srun and Apptainer "
            f"({best * 1000:.0f} ms; aim: {_AIM_S * 1000:+.0f} ms at most)",
        ]
    return "\n".join(lines)
