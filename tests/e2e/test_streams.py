"""`kubectl exec`, `attach`, `cp` and the Python client's streams, by SPDY and by WebSocket."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.cluster import Cluster, pod

SERVE = "trap 'exit 0' TERM; while read -r line; do echo got $line; done; sleep 3600 & wait"
CLOSED = {"websocket": "true", "spdy": "false"}

ROUND_TRIP = """
set -eu
head -c 67108864 /dev/urandom > "$1"
sum=$(sha256sum < "$1")
[ "$(kubectl exec -i "$2" -- cat < "$1" | sha256sum)" = "$sum" ] && echo input and output
kubectl cp "$1" "$2":/tmp/there > /dev/null
[ "$(kubectl exec "$2" -- cat /tmp/there | sha256sum)" = "$sum" ] && echo cp to
kubectl cp "$2":/tmp/there "$1".back > /dev/null
[ "$(sha256sum < "$1".back)" = "$sum" ] && echo cp from
rm -f "$1" "$1".back
"""

TERMINAL = r"""
import fcntl, os, pty, select, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("kubectl", ["kubectl", "exec", "-it", sys.argv[1], "--", "sh"])
def size(rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
def until(expected):
    shown = b""
    while expected not in shown:
        assert select.select([terminal], [], [], 120)[0], shown
        shown += os.read(terminal, 4096)
size(33, 101)
until(b"# ")
os.write(terminal, b"stty size\n")
until(b"33 101")
size(25, 80)
os.write(terminal, b"until stty size | grep '25 80'; do :; done; exit 3\n")
until(b"25 80\r\n")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

PYTHON_CLIENT = r"""
import sys
from kubernetes import client, config
from kubernetes.stream import portforward, stream
config.load_kube_config()
api = client.CoreV1Api()
namespace, name = sys.argv[1:]
connection = stream(
    api.connect_get_namespaced_pod_exec, name, namespace,
    command=["sh", "-c", "read line; echo out $line; echo err >&2; exit 17"],
    stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
)
connection.write_stdin("hello\n")
connection.run_forever(timeout=60)
print(connection.read_stdout(), connection.read_stderr(), connection.returncode)
print(stream(
    api.connect_get_namespaced_pod_exec, name, namespace,
    command=["echo", "a whole answer"], stdin=False, stdout=True, stderr=True, tty=False,
))
forwarded = portforward(api.connect_get_namespaced_pod_portforward, name, namespace, ports="18090")
connection = forwarded.socket(18090)
connection.setblocking(True)
connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while data := connection.recv(4096):
    answer += data
print(answer.splitlines()[-1].decode(), forwarded.error(18090))
"""


@pytest.fixture(scope="module")
def served(shared: Cluster) -> Cluster:
    """A Pod to run programs in, and one to attach to."""
    page = "mkdir -p /tmp/www; echo a page > /tmp/www/index.html"
    serve = f"{page}; httpd -p 127.0.0.1:18090 -h /tmp/www; trap 'exit 0' TERM; sleep 3600 & wait"
    shared.create(
        pod("programs", "sh", "-c", serve),
        pod("reader", "sh", "-c", SERVE, container={"stdin": True}),
    )
    for name in ("programs", "reader"):
        shared.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=240s")
    return shared


def by(
    cluster: Cluster, codec: str, *argv: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """A command whose kubectl speaks one of the two protocols, in the test's namespace."""
    web = f"KUBECTL_REMOTE_COMMAND_WEBSOCKETS={CLOSED[codec]}"
    kubectl = f'kubectl() {{ command kubectl --namespace {cluster.namespace} "$@"; }}\n'
    script = kubectl + (argv[0] if len(argv) > 1 else '"$@"')
    rest = argv[1:] if len(argv) > 1 else ()
    return cluster.run(
        ["env", web, "bash", "-c", script, "bash", *rest], stdin=stdin, check=False, timeout_s=400
    )


@pytest.mark.parametrize("codec", CLOSED)
def test_exec(served: Cluster, codec: str) -> None:
    run = 'kubectl exec "$@"'
    done = by(served, codec, run, "programs", "--", "sh", "-c", "echo out; echo err >&2; exit 17")
    assert (done.returncode, done.stdout) == (17, "out\n")
    assert done.stderr == "err\ncommand terminated with exit code 17\n"
    nasty = ["a  b", "'\"$(id)`", "line\nbreak", "ü&;"]
    done = by(served, codec, run, "programs", "--", "printf", "<%s>", *nasty)
    assert done.stdout == "".join(f"<{word}>" for word in nasty)
    done = by(served, codec, run, "programs", "--", "no-such-program")
    assert done.returncode == 1
    assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr
    done = by(served, codec, run, "-i", "programs", "--", "cat", stdin="hello")
    assert done.stdout == "hello"


@pytest.mark.parametrize("codec", CLOSED)
def test_64_mib_there_and_back(served: Cluster, codec: str) -> None:
    done = by(served, codec, ROUND_TRIP, served.home(f"big-{codec}"), "programs")
    assert done.stdout.splitlines() == ["input and output", "cp to", "cp from"], done.stderr


@pytest.mark.parametrize("codec", CLOSED)
def test_a_terminal(served: Cluster, codec: str) -> None:
    script = TERMINAL.replace('"exec"', f'"--namespace={served.namespace}", "exec"')
    done = by(served, codec, 'exec python3 "$@"', "-c", script, "programs")
    assert done.returncode == 3, done.stderr


@pytest.mark.parametrize("codec", CLOSED)
def test_attach(served: Cluster, codec: str) -> None:
    line = f"by {codec}"
    # It goes on after its input has ended, until its reader has seen enough.
    attach = 'echo "$1" | kubectl attach -i reader -c main | grep -m 1 "got $1"'
    assert by(served, codec, attach, line).stdout == f"got {line}\n"


def test_the_python_client(served: Cluster) -> None:
    python = "/opt/software/hpk/bin/python"
    done = served.run([python, "-c", PYTHON_CLIENT, served.namespace, "programs"])
    assert done.stdout.splitlines() == [
        "out hello",
        " err",
        " 17",
        "a whole answer",
        "",
        "a page None",
    ]


def test_a_stream_of_another_user_cannot_be_had(served: Cluster) -> None:
    node = served.get("pod", "programs")["spec"]["nodeName"]
    found = served.get("node", node)["status"]
    url = (
        f"https://{found['addresses'][0]['address']}:{found['daemonEndpoints']['kubeletEndpoint']['Port']}"
        f"/exec/{served.namespace}/programs/main?command=id&output=1"
    )
    refused = served.run(["curl", "-sk", "--max-time", "20", url], user="bob", check=False)
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert json.dumps(found["declaredFeatures"]) == '["ExtendWebSocketsToKubelet"]'
