"""`kubectl port-forward`: to what listens in a pod, on the compute node where it is.

By SPDY in a WebSocket, as kubectl does it first, and by SPDY alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, Json, eventually, pod
from tests.e2e.forwarding import BY, HALF_CLOSE, Forward

PORT = 18080
CHECKSUM_PORT = 18082
BIG_BYTES = 100 * 1024 * 1024
SERVE = f"""
mkdir /tmp/www && cd /tmp/www && echo hello > index.html
head -c {BIG_BYTES} /dev/urandom > big && sha256sum big
nc -ll -p {CHECKSUM_PORT} -e sha256sum &
exec httpd -f -p 127.0.0.1:{PORT} -h /tmp/www
"""
UPLOAD = f"""
import hashlib, os, socket, sys
digest, block, answer = hashlib.sha256(), os.urandom(1 << 20), b""
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    for _ in range({BIG_BYTES} >> 20):
        connection.sendall(block)
        digest.update(block)
    connection.shutdown(socket.SHUT_WR)
    while data := connection.recv(65536):
        answer += data
print(answer.decode().split()[0] == digest.hexdigest())
"""
MANY = """
import sys, threading, urllib.request
answers = []
def get():
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/") as answer:
        answers.append(answer.read())
threads = [threading.Thread(target=get) for _ in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(answers), set(answers))
"""
HASH = """
import hashlib, sys, urllib.request
digest = hashlib.sha256()
with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/big") as answer:
    while data := answer.read(1 << 20):
        digest.update(data)
print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def served(shared: Cluster) -> Cluster:
    """A namespace with a pod whose web server has begun, and a Service of it."""
    web = pod("web", "sh", "-c", SERVE)
    web["metadata"]["labels"] = {"app": "web"}
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]},
    }
    shared.create(web, service)
    shared.wait_phase("web", "Running")
    eventually(lambda: "big" in shared.logs("web"), what="the server's file")
    return shared


@pytest.fixture(params=BY)
def by(request: pytest.FixtureRequest) -> str:
    """How kubectl asks for it."""
    return str(request.param)


@pytest.fixture
def forward(served: Cluster, by: str) -> Iterator[Forward]:
    """To the pod's server."""
    made = Forward(served, "pod/web", f":{PORT}", by=by)
    yield made
    made.close()


def test_many_connections_at_once(forward: Forward) -> None:
    assert forward.ask(MANY) == "50 {b'hello\\n'}"


def test_who_has_said_all_still_gets_his_answer(forward: Forward) -> None:
    assert forward.ask(HALF_CLOSE) == "hello"


def test_100_mb_arrive_as_they_were(served: Cluster, forward: Forward) -> None:
    assert forward.ask(HASH) == served.logs("web").split()[0]


def test_100_mb_are_sent_and_the_answer_still_comes(served: Cluster, by: str) -> None:
    made = Forward(served, "pod/web", f":{CHECKSUM_PORT}", by=by)
    try:
        assert made.ask(UPLOAD) == "True"
    finally:
        made.close()


def test_by_the_name_of_a_service(served: Cluster) -> None:
    made = Forward(served, "service/web", ":80")
    try:
        assert made.ask(HALF_CLOSE) == "hello"
    finally:
        made.close()


def test_where_nobody_listens_kubectl_says_what_it_says_everywhere(
    served: Cluster, by: str
) -> None:
    made = Forward(served, "pod/web", ":1", by=by)
    try:
        refused = 'with __import__("socket").create_connection(("127.0.0.1", %s)) as c: c.recv(1)'
        argv = ["python3", "-c", refused % made.port]
        served.run(argv, check=False)
        said = ""
        while "refused" not in said:
            line = made.stdout.readline()
            assert line, said
            said += line
        assert "An error occurred forwarding" in said
        assert "error forwarding port 1 to pod web, uid " in said
        assert "failed to connect to localhost:1 inside namespace" in said
    finally:
        made.close()


def test_a_pod_that_does_not_run_has_no_ports(served: Cluster) -> None:
    served.create(pod("over", "true"))
    served.wait_phase("over", "Succeeded")
    argv = ["kubectl", "--namespace", served.namespace, "port-forward", "pod/over", ":80"]
    done = served.run(argv, check=False)
    assert done.returncode != 0
    assert "pod is not running" in done.stderr


def test_it_ends_with_its_pod(served: Cluster) -> None:
    served.create(pod("short", "sh", "-c", f"httpd -p 127.0.0.1:{PORT + 1}; sleep 600"))
    served.wait_phase("short", "Running")
    made = Forward(served, "pod/short", f":{PORT + 1}")
    try:
        served.kubectl("delete", "pod", "short", "--wait=true")
        served.run(["python3", "-c", HALF_CLOSE, made.port], check=False)
        assert made.process.wait(120) != 0
    finally:
        made.close()
