"""Another user of the same hosts reaches, reads and learns nothing of a control plane and its pods.

bob looks at everything of alice's while she runs a pod, and runs a control plane of his own.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import Cluster, Json, eventually, pod
from tests.e2e.faults import PodFiles

NODE = "n1"
HOSTS = (LOGIN, NODE)
SECRET_VALUE = "correct-horse-battery-staple"
_LISTEN = "0A"

_PROBE = """
import json, socket, ssl, sys

PATHS = ("/", "/healthz", "/version", "/metrics", "/pods", "/api/v1/secrets", "/debug/pprof/")

def exchange(address, context, path):
    try:
        with socket.create_connection(address, timeout=5) as sock:
            with (context.wrap_socket(sock) if context else sock) as stream:
                stream.sendall(f"GET {path} HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n".encode())
                return stream.recv(65536).decode(errors="replace").splitlines()[:1]
    except OSError as error:
        return [type(error).__name__]

def client(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context

addresses, certificate, key = json.loads(sys.argv[1])
answers = []
for address in addresses:
    for context in (None, client("", ""), client(certificate, key)):
        for path in PATHS:
            answer = exchange(tuple(address), context, path)
            answers.append([address, path, *answer])
            if not answer or not answer[0].startswith("HTTP/"):
                break  # it does not speak this at all
print(json.dumps(answers))
"""

_WATCH_ARGUMENTS = """
import json, os, select, sys, time
print("watching", flush=True)
seen = set()
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    seen.add(file.read().decode(errors="replace"))
            except OSError:
                pass
print(json.dumps(sorted(seen)), flush=True)
"""


@pytest.fixture(scope="module")
def bob(machine: Machine, control_plane: Cluster) -> Iterator[Cluster]:
    """bob's control plane, beside alice's."""
    cluster = Cluster(machine=machine, user="bob", namespace=f"t-{secrets.token_hex(3)}")
    cluster.run(["hpk", "up"], timeout_s=180)
    cluster.run(["kubectl", "create", "namespace", cluster.namespace])
    eventually(
        lambda: cluster.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
        what="bob's default service account",
    )
    yield cluster
    cluster.run(["kubectl", "delete", "namespace", cluster.namespace, "--wait=false"])
    cluster.run(["hpk", "down", "--cancel-jobs"], timeout_s=120)


@pytest.fixture(scope="module")
def running(shared: Cluster) -> str:
    """A pod of alice's that runs on NODE."""
    shared.create(
        pod(
            "running",
            "sleep",
            "1000",
            annotations={"slurm-job.hpk.io/flags": f"--nodelist={NODE}"},
        )
    )
    shared.wait_phase("running", "Running")
    return "running"


def listening(cluster: Cluster, host: str, user: str) -> list[tuple[str, int]]:
    """Where a user's processes listen for TCP, by the kernel's table (proc_net_tcp)."""
    uid = str(cluster.machine.lab.user(user).uid)
    found = []
    for table in ("tcp", "tcp6"):
        for line in cluster.read(f"/proc/net/{table}", host=host).splitlines()[1:]:
            fields = line.split()
            if fields[3] != _LISTEN or fields[7] != uid:
                continue
            address, port = fields[1].split(":")
            octets = [str(byte) for byte in reversed(bytes.fromhex(address[-8:]))]
            text = ".".join(octets)
            found.append(("127.0.0.1" if text == "0.0.0.0" else text, int(port, 16)))
    return found


def probe(
    cluster: Cluster, addresses: list[tuple[str, int]], *, host: str, user: str
) -> list[list[str]]:
    """What the ports answer to a user: in plain text, over TLS, and with his own certificate."""
    pki = f"/home/{user}/.hpk/pki"
    argument = json.dumps([addresses, f"{pki}/admin.crt", f"{pki}/admin.key"])
    done = cluster.run(
        ["python3", "-I", "-c", _PROBE, argument], host=host, user=user, timeout_s=300
    )
    answers: list[list[str]] = json.loads(done.stdout)
    return answers


def is_granted(answer: list[str]) -> bool:
    return len(answer) > 2 and " 200 " in answer[2]


def test_no_port_of_another_user_answers_without_his_credentials(
    control_plane: Cluster, bob: Cluster, running: str
) -> None:
    ports = listening(control_plane, LOGIN, "alice")
    chosen = json.loads(control_plane.read(control_plane.home(".hpk/control-plane/ports.json")))
    assert set(chosen.values()) <= {port for _, port in ports}
    # The probe can tell: alice's own certificate opens her API server.
    hers = probe(control_plane, ports, host=LOGIN, user="alice")
    assert any(is_granted(answer) for answer in hers)
    for host in HOSTS:
        reachable = [one for one in ports if host == LOGIN or not one[0].startswith("127.")]
        answers = probe(control_plane, reachable, host=host, user="bob")
        assert [answer for answer in answers if is_granted(answer)] == []
        refused = [a for a in answers if len(a) > 2 and (" 401 " in a[2] or " 403 " in a[2])]
        assert refused  # the API server was really spoken to
    assert listening(control_plane, NODE, "alice") == []


def test_no_file_of_another_users_can_be_read(
    control_plane: Cluster, bob: Cluster, running: str
) -> None:
    places = ["/home/alice/.hpk", "/home/alice/.cache", "/tmp", "/var/tmp", "/dev/shm", "/run"]
    control_plane.run(["chmod", "755", "/home/alice"])
    try:
        for host in HOSTS:
            argv = ["find", *places, "-user", "alice", "-readable", "-not", "-type", "l"]
            hers = control_plane.run(argv, host=host, user="alice", check=False).stdout
            his = control_plane.run(argv, host=host, user="bob", check=False).stdout
            assert hers
            assert his == "", host
    finally:
        control_plane.run(["chmod", "700", "/home/alice"])


@contextlib.contextmanager
def watched_arguments(cluster: Cluster, host: str, user: str, seen: list[str]) -> Iterator[None]:
    """All command lines that a user sees on a host while the block runs."""
    argv = cluster.machine.argv(
        host, ["python3", "-I", "-c", _WATCH_ARGUMENTS], user=cluster.machine.lab.user(user)
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdin is not None
        assert watch.stdout is not None
        assert watch.stdout.readline().strip() == "watching"
        yield
        watch.stdin.close()
        seen += json.loads(watch.stdout.read())
        watch.wait(timeout=30)


def secrets_of(cluster: Cluster, files: PodFiles) -> set[str]:
    """What alice's files hold that nobody else may know: keys, tokens, her credentials."""
    found = {SECRET_VALUE}
    for attempt in files.attempts():
        found.add(cluster.read(f"{attempt}/token").strip())
    keys = cluster.run(["sh", "-c", "cat ~/.hpk/pki/*.key"]).stdout
    found |= {line for line in keys.splitlines() if line and not line.startswith("-----")}
    kubeconfig = cluster.read(cluster.home(".hpk/kubeconfig"))
    found |= {word for word in kubeconfig.replace('"', " ").split() if len(word) > 200}
    return {secret for secret in found if len(secret) >= 16}


def test_no_secret_is_in_the_arguments_of_a_process(cluster: Cluster) -> None:
    made = pod(
        "secretive",
        "sleep",
        "1000",
        annotations={"slurm-job.hpk.io/flags": f"--nodelist={NODE}"},
        container={"env": [{"name": "PASSWORD", "value": SECRET_VALUE}]},
    )
    seen: list[str] = []
    with contextlib.ExitStack() as watchers:
        for host in HOSTS:
            watchers.enter_context(watched_arguments(cluster, host, "bob", seen))
        cluster.create(made)
        cluster.wait_phase("secretive", "Running")
    text = "\n".join(seen)
    for program in ("-m\0kubelet", "supervisor-", "apptainer"):
        assert program in text  # bob did see her at work
    known = secrets_of(cluster, PodFiles.of(cluster, "secretive"))
    assert len(known) > 10
    assert [secret for secret in known if secret in text] == []


def test_two_users_run_control_planes_beside_each_other(
    cluster: Cluster, bob: Cluster, running: str, shared: Cluster
) -> None:
    for owner in (cluster, bob):
        owner.create(pod("mine", "sh", "-c", "id -u; echo hello"))
        found = owner.wait_phase("mine", "Succeeded", "Failed")
        assert found["status"]["phase"] == "Succeeded"
        assert owner.logs("mine").endswith("hello\n")
    (job,) = bob.job_ids("mine")
    assert job_user(cluster, job) == "bob"
    assert job_user(cluster, cluster.job_ids("mine")[0]) == "alice"
    bobs: Json = bob.get("pods", "--all-namespaces")
    assert {item["metadata"]["name"] for item in bobs["items"]} == {"mine"}
    bob.kubectl("delete", "pod", "mine")
    shared.wait_phase(running, "Running")


def job_user(cluster: Cluster, job: int) -> str:
    """Whose a job is."""
    argv = ["sacct", "-a", "-n", "-X", "-P", "-j", str(job), "-o", "User"]
    return cluster.run(argv, user="root").stdout.strip()
