"""A site whose compute nodes reach no port of the login node: the kubelet dials the pods' jobs."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.cluster import Cluster, eventually, pod
from tests.e2e.forwarding import HALF_CLOSE, Forward

PORT = 18090
SERVE = f"""
mkdir /tmp/www && cd /tmp/www && echo hello > index.html && echo "$GREETING"
exec httpd -f -p 127.0.0.1:{PORT} -h /tmp/www
"""


def test_a_pod_is_run_and_entered_all_the_same(cluster: Cluster, wall: Callable[[], None]) -> None:
    wall()
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "words"},
        "data": {"greeting": "good morning"},
    }
    source = {"configMapKeyRef": {"name": "words", "key": "greeting"}}
    env = {"env": [{"name": "GREETING", "valueFrom": source}]}
    cluster.create(config, pod("apart", "sh", "-c", SERVE, container=env))
    cluster.wait_phase("apart", "Running")
    # What it is to know comes through the channel alone.
    eventually(lambda: cluster.logs("apart") == "good morning\n", what="the bundle's words")
    echo = cluster.kubectl("exec", "apart", "--", "sh", "-c", "echo $GREETING; exit 7", check=False)
    assert (echo.stdout, echo.returncode) == ("good morning\n", 7)
    forward = Forward(cluster, "pod/apart", f":{PORT}")
    try:
        assert forward.ask(HALF_CLOSE) == "hello"
    finally:
        forward.close()

    def dialled() -> list[str]:
        events = cluster.events("apart")
        return [item["message"] for item in events if item["reason"] == "SupervisorDialled"]

    assert "was dialled" in eventually(dialled, what="the Event")[0]
    cluster.kubectl("delete", "pod", "apart", "--wait=true")
