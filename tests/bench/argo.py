"""Fifty steps of an Argo workflow, end to end, against fifty bare jobs with the same dependencies.

Ten chains of five steps: each step waits for the one before it in its chain. Both sides run the
same container image and the same program; Slurm's own ``--dependency=afterok`` is the measure of
what a workflow costs at least.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from tests.bench.startup import cached_image
from tests.e2e.cluster import BUSYBOX, Cluster, Json, eventually

CHAINS, LENGTH = 10, 5
KUSTOMIZATION = "/opt/software/examples/argo"
_TIMEOUT_S = 1800

BARE_STEPS = """#!/bin/bash
# Submits all jobs at once, each after the one before it in its chain: IMAGE DIRECTORY CHAINS LENGTH
set -euo pipefail
cd "$2"
for chain in $(seq "$3"); do
    after=()
    for step in $(seq "$4"); do
        job=$(sbatch --parsable --output=/dev/null "${after[@]}" --wrap \\
            "apptainer -q exec --contain --cleanenv --userns '$1' true && touch '$2/$chain.$step'")
        after=("--dependency=afterok:$job")
    done
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds from the user's command to the end of the last step."""

    bare: float
    argo: float


def workflow(name: str, chains: int, length: int) -> Json:
    """The chains as a DAG."""
    tasks: list[Json] = []
    for chain in range(chains):
        for step in range(length):
            task: Json = {"name": f"c{chain}-s{step}", "template": "step"}
            if step:
                task["depends"] = f"c{chain}-s{step - 1}"
            tasks.append(task)
    step_template: Json = {"name": "step", "container": {"image": BUSYBOX, "command": ["true"]}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": "chains",
            "templates": [{"name": "chains", "dag": {"tasks": tasks}}, step_template],
        },
    }


def run(bench: Cluster) -> Times:
    """Both, one after the other, the bare jobs first; Argo is installed and removed here."""
    with cached_image(bench) as image:
        bare = _bare(bench, image)
    cluster = Cluster(machine=bench.machine, user=bench.user, namespace="argo")
    cluster.kubectl("apply", "-k", KUSTOMIZATION)
    try:
        cluster.kubectl("rollout", "status", "deployment/workflow-controller", "--timeout=120s")
        _argo(cluster, workflow("warm", 1, 1))  # converts the executor's image
        return Times(bare=bare, argo=_argo(cluster, workflow("measured", CHAINS, LENGTH)))
    finally:
        cluster.kubectl("delete", "workflows", "--all")
        cluster.kubectl("delete", "-k", KUSTOMIZATION)


def _bare(cluster: Cluster, image: str) -> float:
    directory = cluster.home("bench-steps")
    cluster.run(["rm", "-rf", directory])
    cluster.run(["mkdir", directory])
    ends = {f"{chain}.{LENGTH}" for chain in range(1, CHAINS + 1)}
    argv = ["bash", "-s", image, directory, str(CHAINS), str(LENGTH)]
    started = time.monotonic()
    cluster.run(argv, stdin=BARE_STEPS)
    eventually(
        lambda: ends <= set(cluster.run(["ls", directory]).stdout.split()),
        timeout_s=_TIMEOUT_S,
        what="the last job of each chain",
    )
    took = time.monotonic() - started
    cluster.run(["rm", "-rf", directory])
    return took


def _argo(cluster: Cluster, manifest: Json) -> float:
    name = manifest["metadata"]["name"]
    started = time.monotonic()
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    phase = eventually(
        lambda: (
            cluster.get("workflow", name).get("status", {}).get("finishedAt")
            and cluster.get("workflow", name)["status"]["phase"]
        ),
        timeout_s=_TIMEOUT_S,
        what=f"the end of workflow {name}",
    )
    took = time.monotonic() - started
    if phase != "Succeeded":
        raise RuntimeError(f"workflow {name}: {phase}")
    return took


def report(times: Times) -> str:
    """The figures as Markdown."""
    steps = CHAINS * LENGTH
    return "\n".join(
        [
            f"## {steps} steps of an Argo workflow",
            "",
            f"{CHAINS} chains of {LENGTH} steps, each after the one before it; from the user's"
            " command to the end of the last step, one run each.",
            "",
            "| | seconds | a step of a chain |",
            "|---|---|---|",
            _row("bare sbatch, `--dependency=afterok`", times.bare),
            _row("Argo Workflows on HPK", times.argo),
            "",
            f"**Ratio: {times.argo / times.bare:.2f}.** A bare job runs one container, a step of"
            " Argo's three: its init container, the step's and the one that waits for its outputs.",
        ]
    )


def _row(name: str, whole_s: float) -> str:
    return f"| {name} | {whole_s:.1f} | {whole_s / LENGTH:.2f} |"
