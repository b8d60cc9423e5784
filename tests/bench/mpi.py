"""How long an MPI run takes to start: through HPK, on bare hosts, and in a container for each rank.

The same program, compiled here, runs in all three; it says when its last rank came to main() and
when its last rank left the first barrier. The start is srun's own: the supervisor notes when it has
started it, the bare job looks at the clock before it does.
"""

from __future__ import annotations

import base64
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import stats
from tests.bench.startup import run_to_its_end, written
from tests.e2e.cluster import LAMMPS, Cluster, Json, eventually

SIZES = (2, 4, 8)
NODES = 2
TIMEOUT_S = 30
"""Of one run. Now and then one hangs or crashes in Open MPI's start, on bare hosts too, where many
more processes want to run than there are cores. Such a run is left out, and counted."""
KINDS = {
    "host": "bare srun, on the hosts",
    "each": "bare srun, a container for each rank",
    "hpk": "pod, a container for each node",
}
# Ranks that spin would measure the two cores they share.
SCRIPT = """#!/bin/bash
#SBATCH --output={output}
#SBATCH --ntasks={size} --ntasks-per-node={per_node} --mem-per-cpu=256
export OMPI_MCA_mpi_yield_when_idle=1
echo "from host $(date +%s.%N)"
timeout {timeout} srun --mpi=pmix {program}
# Without it a rank in a user namespace of its own fails now and then to map PMIx's shared memory.
export PMIX_MCA_gds=hash
echo "from each $(date +%s.%N)"
timeout {timeout} srun --mpi=pmix apptainer -q exec --userns --bind {directory} {image} {program}
echo end
"""


Runs = dict[tuple[str, int], list["Start"]]
"""By kind and number of ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start, in seconds.

    :param launch: from srun's start to the last rank's leaving the first barrier.
    :param init: from the last rank's main() to the same.
    """

    launch: float
    init: float


def run(cluster: Cluster, runs: int) -> tuple[Runs, Counter[str]]:
    """Alternate them; one round that is not counted comes first. Also how many were left out."""
    found: Runs = {(kind, size): [] for kind in KINDS for size in SIZES}
    lost: Counter[str] = Counter()
    directory = cluster.home("bench-mpi")
    program = f"{directory}/mpi-start"
    cluster.run(["mkdir", "-p", directory])
    encoded = base64.b64encode(_compile()).decode()
    text = 'base64 -d > "$1" && chmod 755 "$1"'
    cluster.run(["sh", "-c", text, "sh", program], stdin=encoded)
    image = ""
    for number in range(runs + 1):
        for size in SIZES:
            pod = _pod(f"mpi-{size}-{number}", size, directory)
            start, image = _hpk(cluster, pod)
            times = {"hpk": start, **_bare(cluster, size, directory, image)}
            for kind, start in times.items():
                if start is None:
                    lost[kind] += 1
                elif number > 0:
                    found[kind, size].append(start)
    cluster.run(["rm", "-r", directory])
    return found, lost


def _compile() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "mpi-start"
        source = Path(__file__).with_name("mpi-start.c")
        argv = ["mpicc", "-O2", "-Wall", "-Wextra", "-Werror", f"-o{output}", str(source)]
        subprocess.run(argv, check=True)
        return output.read_bytes()


def _pod(name: str, size: int, directory: str) -> Json:
    main: Json = {
        "name": "main",
        "image": LAMMPS,
        "command": [f"{directory}/mpi-start"],
        "env": [{"name": "OMPI_MCA_mpi_yield_when_idle", "value": "1"}],
        "resources": {"requests": {"cpu": "1", "memory": "256Mi"}},
        "volumeMounts": [{"name": "program", "mountPath": directory, "readOnly": True}],
    }
    annotations = {
        "slurm-job.hpk.io/flags": f"--ntasks={size} --ntasks-per-node={size // NODES}",
        "slurm-job.hpk.io/mpi-flags": "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": TIMEOUT_S,
            "containers": [main],
            "volumes": [{"name": "program", "hostPath": {"path": directory}}],
        },
    }


def _hpk(cluster: Cluster, pod: Json) -> tuple[Start | None, str]:
    """A pod's start, and the image it used."""
    found = run_to_its_end(cluster, pod, timeout_s=TIMEOUT_S + 10, check=False)
    journal, record = written(cluster, found)
    name = pod["metadata"]["name"]
    uid = found["metadata"]["uid"]
    attempt = cluster.home(".hpk", "pods", uid, "attempts", journal[0]["nonce"])
    spec = cluster.read(f"{attempt}/pod.json")
    image = re.search(r'"path": ?"([^"]+\.sif)"', spec)
    if image is None:
        raise ValueError(f"no image in {attempt}/pod.json")
    started = float(record["containers"][0]["state"].get("started_at_s") or 0)
    start = _start(cluster.logs(name), started)
    cluster.kubectl("delete", "pod", name, "--wait=false")
    return start, image[1]


def _bare(cluster: Cluster, size: int, directory: str, image: str) -> dict[str, Start | None]:
    output, script = f"{directory}/out", f"{directory}/script"
    cluster.run(["rm", "-f", output])
    text = SCRIPT.format(
        output=output,
        size=size,
        per_node=size // NODES,
        program=f"{directory}/mpi-start",
        directory=directory,
        image=image,
        timeout=TIMEOUT_S,
    )
    cluster.run(["sh", "-c", 'cat > "$1"', "sh", script], stdin=text)
    cluster.run(["sbatch", script])

    def look() -> str:
        text = cluster.read(output)
        return text if text.endswith("end\n") else ""

    text = eventually(look, timeout_s=2 * TIMEOUT_S + 60, what="the bare runs' output")
    parts = re.findall(r"from (\w+) ([0-9.]+)\n(.*?)(?=from |end\n)", text, re.DOTALL)
    return {kind: _start(said, float(started)) for kind, started, said in parts}


def _start(said: str, started: float) -> Start | None:
    """None where the run did not come to its end."""
    found = re.search(r"^times ([0-9.]+) ([0-9.]+) \d+$", said, re.MULTILINE)
    if found is None:
        return None
    return Start(launch=float(found[2]) - started, init=float(found[2]) - float(found[1]))


def report(found: Mapping[tuple[str, int], Sequence[Start]], lost: Mapping[str, int]) -> str:
    """The figures as Markdown."""
    runs = max(len(starts) for starts in found.values())
    lines = [
        "## MPI start",
        "",
        f"The same program in three places, over {NODES} nodes, {runs} runs of each, alternating; "
        "seconds. To the moment the last rank leaves the first barrier,",
    ]
    left_out = ", ".join(f"{lost[kind]} of: {KINDS[kind]}" for kind in KINDS if lost.get(kind))
    if left_out:
        lines += ["", f"Left out, for they did not end in {TIMEOUT_S} s or crashed: {left_out}."]
    parts = (
        ("launch", "from srun's start (processes, containers, MPI_Init)"),
        ("init", "from the last rank's main() (MPI_Init and the barrier alone)"),
    )
    for field, title in parts:
        lines += ["", f"### {title}", ""]
        lines += ["| ranks | | min | median | middle half | max |", "|---|---|---|---|---|---|"]
        for size in SIZES:
            for kind, name in KINDS.items():
                values = [float(getattr(start, field)) for start in found[kind, size]]
                if values:
                    lines.append(f"| {size} {stats.row(name, values)}")
        lines.append("")
        for size in SIZES:
            hpk, host, each = (
                [float(getattr(start, field)) for start in found[kind, size]]
                for kind in ("hpk", "host", "each")
            )
            if not (hpk and host and each):
                continue
            lines.append(
                f"**{size} ranks: pod over hosts {stats.ratio(hpk, host)}; "
                f"over a container for each rank {stats.ratio(hpk, each)}.**  "
            )
    return "\n".join(lines)
