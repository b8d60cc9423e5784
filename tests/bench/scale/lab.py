"""What all parts of the measurement do with the lab."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench.usage import settle, wait
from tests.e2e.cluster import FLAGS, Cluster, Json, pod

PYTHON = "/opt/software/hpk/bin/python"
NAMESPACE = "scale"
_AGENT = Path(__file__).parents[1] / "agent.py"


def ask(cluster: Cluster, command: str, **order: Any) -> Json:
    """Have the agent on the login node do something."""
    done = cluster.run(
        [PYTHON, "-", command, json.dumps({"namespace": cluster.namespace, **order})],
        stdin=_AGENT.read_text(),
        timeout_s=3600,
    )
    answer: Json = json.loads(done.stdout)
    return answer


def start_anew(cluster: Cluster) -> None:
    """End the control plane and start it again, so that no memory is left from what was before."""
    cluster.run(["hpk", "down", "--keep-jobs"], timeout_s=180)
    cluster.run(["hpk", "up"], timeout_s=300)
    settle(cluster.machine)


def held_pod() -> Json:
    """A Pod whose job stays in the queue: Slurm holds it until it is released."""
    return pod("held", "true", annotations={FLAGS: "--hold"})


def submitted(cluster: Cluster) -> int:
    """How many jobs slurmctld has taken since it counts."""
    found = re.search(r"^Jobs submitted:\s*(\d+)", cluster.run(["sdiag"]).stdout, re.MULTILINE)
    if found is None:
        raise ValueError("sdiag does not say how many jobs were submitted")
    return int(found[1])


def queued(cluster: Cluster) -> int:
    """The user's jobs in Slurm's queue."""
    return len(cluster.run(["squeue", "-h", "--me", "-o", "%i"]).stdout.split())


def wait_queue_empty(cluster: Cluster, *, timeout_s: float = 1800) -> float:
    """When the user's last job had left the queue, on the monotonic clock."""
    return wait(lambda: queued(cluster) == 0, "no jobs", pause_s=0.3, timeout_s=timeout_s)


def pods_there(cluster: Cluster) -> int:
    """How many Pods the API server has in the namespace, without reading them."""
    url = f"/api/v1/namespaces/{cluster.namespace}/pods?limit=1"
    answer = json.loads(cluster.run(["kubectl", "get", "--raw", url]).stdout)
    return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount") or 0)


def api_requests(cluster: Cluster) -> Counter[str]:
    """How often the API server was asked for what so far: ``PATCH pods/status`` → times."""
    found: Counter[str] = Counter()
    for line in cluster.run(["kubectl", "get", "--raw", "/metrics"]).stdout.splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
        what = "/".join(filter(None, (labels["resource"], labels["subresource"])))
        if labels["verb"] in ("POST", "PUT", "PATCH", "APPLY", "DELETE", "GET"):
            found[f"{labels['verb']} {what}"] += int(float(line.rpartition(" ")[2]))
    return found


def requests_each(before: Counter[str], after: Counter[str], count: int) -> dict[str, float]:
    """Of one pod, the most frequent first; what is not asked for pods' sake is left out."""
    each = {what: times / count for what, times in (after - before).items()}
    return {what: n for what, n in sorted(each.items(), key=lambda item: -item[1]) if n >= 0.2}
