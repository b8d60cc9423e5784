"""A canary against execution: a file whose name stands in every string that could reach a shell.

Were one of them executed, the file would be there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, main_status, pod

CANARY = "/home/alice/canary"
CANARY_FILES = f"{CANARY} /home/alice/canary* /tmp/canary* /canary*"
BYSTANDER = "bystander"


def canaries(cluster: Cluster) -> list[str]:
    """The canary's files, on every host."""
    found: list[str] = []
    for host in cluster.machine.lab.hosts:
        listed = cluster.run(
            ["sh", "-c", f"ls -d {CANARY_FILES} 2>/dev/null"], host=host.name, check=False
        )
        found += [f"{host.name}: {line}" for line in listed.stdout.split()]
    return found


@pytest.fixture(scope="module")
def others_go_on(shared: Cluster) -> Iterator[None]:
    """Nothing was executed, the kubelet is the same, a Pod beside all this never noticed."""
    cluster = shared
    cluster.create(pod(BYSTANDER, "sleep", "100000"))
    cluster.wait_phase(BYSTANDER, "Running")
    kubelet = cluster.kubelet_pid()
    cluster.run(["touch", f"{CANARY}-control"])
    assert canaries(cluster), "a canary would not be seen"
    cluster.run(["rm", f"{CANARY}-control"])
    yield
    assert not canaries(cluster)
    assert cluster.kubelet_pid() == kubelet
    seen = cluster.get("pod", BYSTANDER)
    assert seen["status"]["phase"] == "Running"
    assert main_status(seen)["restartCount"] == 0
