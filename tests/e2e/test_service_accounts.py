"""A Pod's service account: its token, its CA and the address it has for the API server."""

from __future__ import annotations

import json
import re

from tests.e2e.cluster import Cluster, pod, succeeded

SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
RELAY = """
import http.client, json, os, ssl, socket, sys
host, port = sys.argv[1:]
with socket.create_server(("", 0)) as server:
    print(server.getsockname()[1], flush=True)
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as lines:
        namespace, token, *ca = lines.read().decode().split("\\n", 2)
context = ssl.create_default_context(cadata=ca[0])
for path in (f"/api/v1/namespaces/{namespace}/pods", "/api", "/api/v1/secrets"):
    api = http.client.HTTPSConnection(host, int(port), context=context)
    api.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = api.getresponse()
    text = answer.read().decode()
    print(json.dumps([path, answer.status, json.loads(text).get("message", "")]), flush=True)
"""


def test_the_service_account_works_with_what_is_in_the_container(shared: Cluster) -> None:
    """Token, CA and address as the container has them make a verified request.

    The container hands them to a client beside it, which sees the API server's own port.
    """
    shared.kubectl("create", "role", "reader", "--verb=list", "--resource=pods")
    shared.kubectl(
        "create",
        "rolebinding",
        "r",
        "--role=reader",
        f"--serviceaccount={shared.namespace}:default",
    )
    server = json.loads(shared.run(["kubectl", "config", "view", "-o", "json"]).stdout)
    url = server["clusters"][0]["cluster"]["server"].removeprefix("https://")
    api_host, _, api_port = url.rpartition(":")
    relay = shared.start(["python3", "-c", RELAY, api_host, api_port])
    assert relay.stdout is not None
    try:
        port = int(relay.stdout.readline())
        script = (
            f"cd {SECRETS};"
            f" (cat namespace; echo; cat token; echo; cat ca.crt) | nc {api_host} {port};"
            " echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT;"
            " if touch x 2>/dev/null; then echo writable; fi"
        )
        shared.create(pod("account", "sh", "-c", script))
        shared.wait_phase("account", "Succeeded", "Failed")
        answers = [json.loads(line) for line in relay.communicate(timeout=60)[0].splitlines()]
    finally:
        relay.kill()
        relay.wait()
    assert [answer[1] for answer in answers] == [200, 200, 403], answers
    assert f"system:serviceaccount:{shared.namespace}:default" in answers[2][2]
    # That a client gets through there is shown in test_sharing.
    assert re.fullmatch(r"127\.0\.0\.1:\d+\n", shared.logs("account"))


def test_a_pod_may_do_without_a_token(shared: Cluster) -> None:
    spec = {"automountServiceAccountToken": False}
    shared.create(pod("tokenless", "sh", "-c", f"ls {SECRETS} 2>&1 || true", spec=spec))
    assert succeeded(shared.wait_phase("tokenless", "Succeeded", "Failed"))
    assert "No such file or directory" in shared.logs("tokenless")
