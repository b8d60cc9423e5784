"""What runs while things go wrong: Jobs that must each run once, and services that must stay.

Every container notes what it does in a file that no fault touches: ``UID NAME start`` first and
``UID NAME done`` last; those that stay note ``UID NAME alive`` each second in between.
"""

from __future__ import annotations

import json
from typing import Any

from tests.chaos.world import NOTES_DIR, World
from tests.e2e.cluster import BUSYBOX, FLAGS, LAMMPS, MPI_FLAGS, pod

Json = dict[str, Any]
_NOTE = 'note() { echo "$POD_UID $POD_NAME $1 $(date +%s)" >> /notes/notes; }\n'
_SELF = [
    {"name": f"POD_{key.upper()}", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{key}"}}}
    for key in ("uid", "name")
]
_STAY = "trap 'note done; exit 0' TERM\nnote start\nwhile :; do note alive; sleep 1; done\n"


def _template(
    script: str,
    *,
    labels: Json,
    restart: str,
    image: str = BUSYBOX,
    annotations: Json | None = None,
) -> Json:
    container = {
        "name": "main",
        "image": image,
        "command": ["sh", "-c", _NOTE + script],
        "env": _SELF,
        "volumeMounts": [{"name": "notes", "mountPath": "/notes"}],
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}},
    }
    return {
        "metadata": {"labels": labels, "annotations": annotations or {}},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            "volumes": [{"name": "notes", "hostPath": {"path": NOTES_DIR}}],
        },
    }


def _job(name: str, template: Json, *, completions: int, parallelism: int) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": completions,
            "parallelism": parallelism,
            # What was really killed is tried again; how often is not what is asked here.
            "backoffLimit": 1000,
            "template": template,
        },
    }


def batch_job(number: int, seconds: int) -> Json:
    """A Job of six pods, three at a time, each of which works for so many seconds."""
    script = f"note start\nsleep {seconds}\nnote done\n"
    name = f"batch-{number}"
    template = _template(script, labels={"chaos": name}, restart="Never")
    return _job(name, template, completions=6, parallelism=3)


def mpi_job(number: int) -> Json:
    """A Job of one pod whose command is four MPI ranks on two nodes; rank 0 notes."""
    script = (
        '[ "$PMIX_RANK" != 0 ] || note start\n'
        "mpi-proof --sleep 3 || exit 1\n"
        '[ "$PMIX_RANK" != 0 ] || note done\n'
    )
    name = f"mpi-{number}"
    annotations = {FLAGS: "--ntasks=4 --ntasks-per-node=2", MPI_FLAGS: "true"}
    template = _template(
        script, labels={"chaos": name}, restart="Never", image=LAMMPS, annotations=annotations
    )
    return _job(name, template, completions=1, parallelism=1)


def services() -> list[Json]:
    """A Deployment and a StatefulSet of two replicas each."""
    found: list[Json] = []
    for kind, name in (("Deployment", "web"), ("StatefulSet", "db")):
        spec: Json = {
            "replicas": 2,
            "selector": {"matchLabels": {"chaos": name}},
            "template": _template(_STAY, labels={"chaos": name}, restart="Always"),
        }
        if kind == "StatefulSet":
            spec["serviceName"] = name
        found.append(
            {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        )
    return found


def sweeper(host: str) -> Json:
    """A pod on this node that ends at once."""
    return pod(f"sweeper-{host}", "true", annotations={FLAGS: f"--nodelist={host}"})


def apply(world: World, *objects: Json) -> bool:
    """Create objects that are not there yet; False where the API server does not take them now."""
    whole = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    done = world.user(
        ["kubectl", "-n", world.cluster.namespace, "apply", "-f", "-"], stdin=json.dumps(whole)
    )
    return done.returncode == 0
