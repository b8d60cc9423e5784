"""What further containers of a pod cost: five in one, against one, and against five bare ones.

The bare job starts five containers beside each other, which is the least that anybody could do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench import stats
from tests.bench.startup import (
    RUNTIME,
    RUNTIMES,
    boot_now,
    cached_image,
    measure_pod,
    run_to_its_end,
)
from tests.e2e.cluster import BUSYBOX, Cluster, Json, eventually

CONTAINERS = 5
SCRIPT = """#!/bin/bash
#SBATCH --output={output}
for number in {numbers}; do
    apptainer -q exec --contain --cleanenv --userns {image} cat /proc/uptime &
done
wait
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Seconds from the user's command to the first instruction of the last container.

    :param pods: of five containers, by runtime.
    """

    bare: float
    one: float
    pods: dict[str, float]


def run(cluster: Cluster, runs: int) -> list[Round]:
    """Alternate them; one round that is not counted comes first."""
    with cached_image(cluster) as image:
        rounds = [
            Round(
                bare=_bare(cluster, image, number),
                one=measure_pod(cluster, "apptainer", number).running,
                pods={name: _pod(cluster, name, number) for name in RUNTIMES},
            )
            for number in range(runs + 1)
        ]
    return rounds[1:]


def _bare(cluster: Cluster, image: str, number: int) -> float:
    output = cluster.home(f"bench-several-{number}.out")
    cluster.run(["rm", "-f", output])
    numbers = " ".join(str(item) for item in range(CONTAINERS))
    text = SCRIPT.format(output=output, image=image, numbers=numbers)
    path = cluster.home(f"bench-several-{number}.sh")
    cluster.run(["sh", "-c", 'cat > "$1"', "sh", path], stdin=text)
    started = boot_now()
    cluster.run(["sbatch", path])

    def look() -> list[str]:
        lines = cluster.read(output).splitlines()
        return lines if len(lines) == CONTAINERS else []

    return _last(eventually(look, what="five lines of the bare job")) - started


def _pod(cluster: Cluster, runtime: str, number: int) -> float:
    name = f"several-{runtime}-{number}"
    containers = [
        {"name": f"c{item}", "image": BUSYBOX, "command": ["cat", "/proc/uptime"]}
        for item in range(CONTAINERS)
    ]
    manifest: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {RUNTIME: runtime}},
        "spec": {"restartPolicy": "Never", "containers": containers},
    }
    started = boot_now()
    run_to_its_end(cluster, manifest)
    log = cluster.logs(name, "--all-containers")
    cluster.kubectl("delete", "pod", name, "--wait=false")
    return _last(log.splitlines()) - started


def _last(lines: Sequence[str]) -> float:
    return max(float(line.split()[0]) for line in lines)


def report(rounds: Sequence[Round]) -> str:
    """The figures as Markdown."""
    bare, one = [item.bare for item in rounds], [item.one for item in rounds]
    five = {name: [item.pods[name] for item in rounds] for name in RUNTIMES}
    return "\n".join(
        [
            f"## A pod of {CONTAINERS} containers",
            "",
            "To the first instruction of the container that is last, "
            f"{len(rounds)} runs of each, alternating; seconds.",
            "",
            *stats.HEAD,
            stats.row(f"bare sbatch, {CONTAINERS} Apptainers beside each other", bare),
            stats.row("pod of one container, apptainer", one),
            *(stats.row(f"pod of {CONTAINERS}, {name}", five[name]) for name in RUNTIMES),
            "",
            f"**{CONTAINERS} over bare {CONTAINERS} (apptainer): "
            f"{stats.ratio(five['apptainer'], bare)}**; "
            f"over a pod of one: {stats.ratio(five['apptainer'], one)}.",
        ]
    )
