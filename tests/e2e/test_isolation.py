"""Another user of the same hosts reaches, reads and learns nothing of a control plane and its pods.

bob looks at everything of alice's while she runs a pod, and runs a control plane of his own.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import BUSYBOX, LAMMPS, Cluster, Json, eventually, pod
from tests.e2e.faults import PodFiles

NODE = "n1"
NODES = ("n1", "n2")
HOSTS = (LOGIN, *NODES)
RUNTIMES = ("apptainer", "podman")
_SNOOP = (Path(__file__).parent / "snoop.py").read_text()
_ROOTS = ("/home", "/tmp", "/var", "/dev/shm", "/dev/mqueue", "/run", "/etc")
_NOTHING_DONE = re.compile("Invalid user id|no tasks running")
"""What Slurm says where it ends well although it refused."""
_OPEN_SOCKETS = re.compile(r"/run/munge/|/run/mysqld/|/var/spool/slurmd/n\d+_\d+\.\d+$")
"""Slurm's own, munge, its database and the daemons of steps: they know who is asking."""
ON_NODE = {"slurm-job.hpk.io/flags": f"--nodelist={NODE}"}
_LISTEN = "0A"

_PROBE = """
import concurrent.futures, json, socket, ssl, sys

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

def ask(address):
    answers = []
    for context in (None, client("", ""), client(certificate, key)):
        for path in PATHS:
            answer = exchange(tuple(address), context, path)
            answers.append([address, path, *answer])
            if not answer or not answer[0].startswith("HTTP/"):
                break  # it does not speak this at all
    return answers

addresses, certificate, key = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(json.dumps([answer for answers in pool.map(ask, addresses) for answer in answers]))
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
    try:
        cluster.run(["hpk", "up"], timeout_s=180)
        cluster.run(["kubectl", "create", "namespace", cluster.namespace])
        eventually(
            lambda: (
                cluster.kubectl("get", "serviceaccount", "default", check=False).returncode == 0
            ),
            what="bob's default service account",
        )
        yield cluster
        cluster.run(["kubectl", "delete", "namespace", cluster.namespace, "--wait=false"])
    finally:
        cluster.run(["hpk", "down", "--cancel-jobs"], timeout_s=120)


class Words(dict[str, str]):
    """What bob must not learn, by what it is."""

    SECRET = ("secret variable", "secret file", "token")

    def secret(self) -> dict[str, str]:
        """Those that must rest on no shared disk either, not even in alice's own files."""
        return {name: word for name, word in self.items() if name in self.SECRET}


def guarded(name: str, runtime: str, words: Words, **annotations: str) -> Json:
    """A Pod with something to hide in each place where a Pod can have it."""
    script = (
        "echo $LOG; cp /secret/file /memory/copy; "
        "trap 'exit 0' TERM; touch /disk/up; while :; do sleep 0.2; done"
    )
    env: list[Json] = [
        {"name": "PLAIN", "value": words["variable"]},
        {"name": "LOG", "value": words["log"]},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "variable"}}},
    ]
    container: Json = {
        "env": env,
        "args": [words["argument"]],
        "volumeMounts": [
            {"name": name, "mountPath": f"/{name}"} for name in ("secret", "memory", "disk")
        ],
    }
    volumes: list[Json] = [
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "disk", "emptyDir": {}},
    ]
    return pod(
        f"{name}-{runtime}",
        "sh",
        "-c",
        script,
        image=LAMMPS if "slurm-job.hpk.io/mpi-flags" in annotations else BUSYBOX,
        annotations={"slurm-job.hpk.io/runtime": runtime, **annotations},
        resources={"requests": {"cpu": "100m", "memory": "64Mi"}},
        container=container,
        spec={"volumes": volumes, "terminationGracePeriodSeconds": 1},
    )


@pytest.fixture(scope="module")
def words(shared: Cluster) -> Words:
    """Words that stand nowhere else."""
    kinds = ("variable", "argument", "log", "secret variable", "secret file")
    return Words({kind: f"canary{secrets.token_hex(16)}" for kind in kinds})


@pytest.fixture(scope="module")
def running(shared: Cluster, words: Words) -> list[str]:
    """Pods of alice's on NODES, with both runtimes, one of each over both of them."""
    secret = {"variable": words["secret variable"], "file": words["secret file"]}
    flags = "slurm-job.hpk.io/flags"
    two = {
        flags: f"--nodelist={','.join(NODES)} --ntasks=2 --ntasks-per-node=1",
        "slurm-job.hpk.io/mpi-flags": "true",
    }
    pods = [
        made
        for runtime in RUNTIMES
        for made in (
            guarded("one", runtime, words, **ON_NODE),
            guarded("two", runtime, words, **two),
        )
    ]
    shared.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": secret},
        *pods,
    )
    names = [item["metadata"]["name"] for item in pods]
    shared.wait_pods(names, lambda found: found["status"].get("phase") == "Running")
    for name in names:
        eventually(lambda name=name: words["log"] in shared.logs(name), what=f"{name} is up")  # type: ignore[misc]
    job = PodFiles.of(shared, names[0]).job_id()
    token = f"cat /dev/shm/hpk-*/{job}/volumes/*/token"
    whole = shared.run(["sh", "-c", token], host=NODE).stdout
    words["token"] = whole.rpartition(".")[2].strip()  # its signature, which only this one has
    assert len(words["token"]) > 64
    return names


def listening(cluster: Cluster, host: str, user: str) -> list[tuple[str, int]]:
    """Where a user's processes listen for TCP."""
    return [
        ("127.0.0.1" if address == "0.0.0.0" else address, port)
        for address, port in bound(cluster, host, user, "tcp", state=_LISTEN)
    ]


def bound(
    cluster: Cluster, host: str, user: str, kind: str, *, state: str = ""
) -> list[tuple[str, int]]:
    """A user's sockets of a kind, by the kernel's table (proc_net_tcp)."""
    uid = str(cluster.machine.lab.user(user).uid)
    found = []
    for table in (kind, f"{kind}6"):
        for line in cluster.read(f"/proc/net/{table}", host=host).splitlines()[1:]:
            fields = line.split()
            if state not in ("", fields[3]) or fields[7] != uid:
                continue
            address, port = fields[1].split(":")
            octets = [str(byte) for byte in reversed(bytes.fromhex(address[-8:]))]
            found.append((".".join(octets), int(port, 16)))
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


def is_loopback(address: tuple[str, int]) -> bool:
    return address[0].startswith("127.")


def is_granted(answer: list[str]) -> bool:
    return len(answer) > 2 and " 200 " in answer[2]


def test_no_port_of_another_user_answers_without_his_credentials(
    control_plane: Cluster, bob: Cluster, running: list[str]
) -> None:
    ports = listening(control_plane, LOGIN, "alice")
    chosen = json.loads(control_plane.read(control_plane.home(".hpk/control-plane/ports.json")))
    assert set(chosen.values()) <= {port for _, port in ports}
    # The probe can tell: alice's own certificate opens her API server.
    hers = probe(control_plane, ports, host=LOGIN, user="alice")
    assert any(is_granted(answer) for answer in hers)
    for owner in HOSTS:
        addresses = listening(control_plane, owner, "alice")
        for host in HOSTS:
            reachable = [one for one in addresses if host == owner or not is_loopback(one)]
            answers = probe(control_plane, reachable, host=host, user="bob")
            assert [answer for answer in answers if is_granted(answer)] == []
            refused = [a for a in answers if len(a) > 2 and (" 401 " in a[2] or " 403 " in a[2])]
            assert refused or owner != LOGIN  # the API server was really spoken to


def test_nothing_listens_for_datagrams_or_on_every_address(
    control_plane: Cluster, running: list[str]
) -> None:
    for host in HOSTS:
        assert bound(control_plane, host, "alice", "udp") == []
    everywhere = [
        one
        for one in bound(control_plane, LOGIN, "alice", "tcp", state=_LISTEN)
        if one[0] == "0.0.0.0"
    ]
    assert everywhere == []


def snoop(cluster: Cluster, words: Words, *, host: str, user: str) -> Json:
    """What a user sees of alice's on a host, and where he finds one of the words."""
    owner = cluster.machine.lab.user(cluster.user).uid
    request = {"words": words, "owner": owner, "roots": _ROOTS}
    done = cluster.run(
        ["python3", "-I", "-c", _SNOOP],
        host=host,
        user=user,
        stdin=json.dumps(request),
        timeout_s=300,
    )
    answer: Json = json.loads(done.stdout)
    answer["sockets"] = [name for name in answer["sockets"] if not _OPEN_SOCKETS.match(name)]
    return answer


def test_no_process_file_or_socket_of_another_users_tells_anything(
    control_plane: Cluster, bob: Cluster, running: list[str], words: Words
) -> None:
    # The program can tell: to alice every word but the arguments' is readable where her pods run.
    hers = snoop(control_plane, words, host=NODE, user="alice")
    assert {name for name, _ in hers["found"]} == set(words)
    assert hers["open"]
    made = control_plane.run(["ls", "-A", "/etc/skel"]).stdout.split()
    public = {"/home/alice", *(f"/home/alice/{name}" for name in made)}
    control_plane.run(["chmod", "755", "/home/alice"])
    try:
        for host in HOSTS:
            seen = snoop(control_plane, words, host=host, user="bob")
            assert [name for name in seen["found"] if name[0] != "argument"] == [], host
            assert set(seen["open"]) <= public, host
            assert seen["sockets"] == [], host
    finally:
        control_plane.run(["chmod", "700", "/home/alice"])


def test_slurm_tells_a_stranger_nothing_and_obeys_him_in_nothing(
    shared: Cluster, running: list[str], words: Words
) -> None:
    for name in running:
        (job,) = shared.job_ids(name)
        questions = (
            ["scontrol", "-d", "-o", "show", "job", str(job)],
            ["scontrol", "show", "step", str(job)],
            ["squeue", "-h", "-j", str(job), "-o", "%all"],
            ["squeue", "-h", "-s", "-j", str(job), "-o", "%all"],
            ["sacct", "-a", "-n", "-P", "-j", str(job), "-o", "ALL"],
            ["sacct", "-a", "-j", str(job), "--batch-script"],
            ["sacct", "-a", "-j", str(job), "--env-vars"],
            ["sstat", "-a", "-n", "-P", "-j", str(job)],
        )
        for argv in questions:
            done = shared.run(argv, user="bob", check=False)
            told = done.stdout + done.stderr
            assert [kind for kind, word in words.items() if word in told] == [], argv
        orders = (
            ["scontrol", "write", "batch_script", str(job), "-"],
            ["srun", f"--jobid={job}", "--overlap", "--immediate=5", "true"],
            ["sattach", f"{job}.0"],
            ["sbcast", f"--jobid={job}", "/etc/hostname", "/tmp/hpk-of-bob"],
            ["scontrol", "update", f"JobId={job}", "TimeLimit=1"],
            ["scontrol", "requeue", str(job)],
            ["scontrol", "suspend", str(job)],
            ["scancel", str(job)],
        )
        for argv in orders:
            done = shared.run(argv, user="bob", check=False)
            assert done.returncode != 0 or _NOTHING_DONE.search(done.stderr), (argv, done)
            assert [kind for kind, word in words.items() if word in done.stdout] == [], argv
    for name in running:
        shared.wait_phase(name, "Running")


def test_no_secret_rests_on_the_shared_file_system(
    shared: Cluster, running: list[str], words: Words
) -> None:
    # Every file of the home, etcd's too, by a pattern that no command line shows.
    argv = ["grep", "-rlFf", "-", "/home/alice"]
    wanted = {name: word for name, word in words.items() if name not in words.secret()}
    assert shared.run(argv, stdin="\n".join(wanted.values())).stdout
    found = shared.run(argv, stdin="\n".join(words.secret().values()), check=False)
    assert (found.stdout, found.returncode) == ("", 1), found.stderr


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


def keys_of(cluster: Cluster, pods: list[str]) -> Words:
    """What alice's files hold that nobody else may know: keys, tokens, her credentials."""
    files = [PodFiles.of(cluster, name) for name in pods]
    found = {cluster.read(f"{path}/token").strip() for one in files for path in one.attempts()}
    keys = cluster.run(["sh", "-c", "cat ~/.hpk/pki/*.key"]).stdout
    found |= {line for line in keys.splitlines() if line and not line.startswith("-----")}
    kubeconfig = cluster.read(cluster.home(".hpk/kubeconfig"))
    found |= {word for word in kubeconfig.replace('"', " ").split() if len(word) > 200}
    return Words({f"key {n}": word for n, word in enumerate(found) if len(word) >= 16})


def test_no_secret_is_in_the_arguments_of_a_process(
    shared: Cluster, running: list[str], words: Words
) -> None:
    seen: list[str] = []
    # Where there is room beside those that run.
    flags = {"slurm-job.hpk.io/flags": f"--nodelist={NODES[1]}"}
    made = [guarded("again", runtime, words, **flags) for runtime in RUNTIMES]
    names = [item["metadata"]["name"] for item in made]
    with contextlib.ExitStack() as watchers:
        for host in HOSTS:
            watchers.enter_context(watched_arguments(shared, host, "bob", seen))
        shared.create(*made)
        shared.wait_pods(names, lambda found: found["status"].get("phase") == "Running")
        shared.kubectl("delete", "pod", *names, "--wait=true")
    text = "\n".join(seen)
    for program in ("-m\0kubelet", "supervisor-", "apptainer", "podman"):
        assert program in text  # bob did see her at work
    known = keys_of(shared, running)
    assert len(known) > 10
    hidden = {**known, **{name: word for name, word in words.items() if name != "argument"}}
    assert [name for name, word in hidden.items() if word in text] == []


def test_two_users_run_control_planes_beside_each_other(
    cluster: Cluster, bob: Cluster, running: list[str], shared: Cluster
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
    shared.wait_phase(running[0], "Running")


def job_user(cluster: Cluster, job: int) -> str:
    """Whose a job is."""
    argv = ["sacct", "-a", "-n", "-X", "-P", "-j", str(job), "-o", "User"]
    return cluster.run(argv, user="root").stdout.strip()
