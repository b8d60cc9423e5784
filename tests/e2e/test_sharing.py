"""One home, used from several hosts and by several versions: pods go on, and nothing runs twice.

All tests share one control plane of a home of its own and the pods on it, and move it about. A pod
that runs says with each of its starts and ends so in a file, and asks the API server for itself all
the time, as any program made for Kubernetes would.
"""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import API_CLIENT, BUSYBOX, Cluster, Json, eventually, pod, terminated

ELSEWHERE = "n4"
CLIENTS = {"client": 1, "podman": 1, "ranks": 2}
"""Pods that ask the API server all the time, and on how many hosts."""
CLIENT = """
import os, socket, ssl, sys, time
from kubernetes import client, config
with open("/shared/ran", "a") as file:
    print(os.environ["POD"], file=file)
config.load_incluster_config()
api = client.CoreV1Api()
secret = "/var/run/secrets/kubernetes.io/serviceaccount"
namespace = open(f"{secret}/namespace").read()
print(socket.gethostname(), "address", os.environ["KUBERNETES_SERVICE_HOST"], flush=True)
print(socket.gethostname(), "port", os.environ["KUBERNETES_SERVICE_PORT"], flush=True)
address = (os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
try:
    with socket.create_connection(address) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname=address[0])
except ssl.SSLCertVerificationError:
    print(socket.gethostname(), "without the CA: refused", flush=True)
for name in (address[0], "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"):
    with socket.create_connection(address) as plain:
        ssl.create_default_context(cafile=f"{secret}/ca.crt").wrap_socket(
            plain, server_hostname=name)
        print(socket.gethostname(), "with the CA:", name, flush=True)
while True:
    try:
        seen = api.read_namespaced_pod(os.environ["POD"], namespace)
        word = seen.metadata.labels["word"]
        print(socket.gethostname(), "saw", word, flush=True)
    except Exception as error:
        print(socket.gethostname(), "failed", type(error).__name__, flush=True)
    time.sleep(0.5)
"""
ENDS = 'echo $POD >> /shared/ran; until [ -e "/shared/$POD.go" ]; do sleep 0.2; done; exit 3'

STRANGER = """
import socket, sys
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60) as client:
        client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print("answered" if client.recv(100) else "closed")
except ConnectionError:
    print("closed")
"""
LATER = """
set -euo pipefail
source=$(realpath -- "$(dirname -- "$(realpath -- "$(command -v hpk)")")/..")
mkdir "$1"
cp -as "$source/." "$1"
rm "$1/bin/hpk"
cp "$source/bin/hpk" "$1/bin"
cd "$1"/lib/python3*/site-packages
for package in hpk kubelet bootstrap; do
    rm -r "$package"
    cp -a "$source"/lib/python3*/site-packages/"$package" .
done
sed -i 's/^PROTOCOL_VERSION = .*/PROTOCOL_VERSION = 1000/' hpk/model/frames.py
grep -qx 'PROTOCOL_VERSION = 1000' hpk/model/frames.py
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A control plane that moves, and what its pods share."""

    cluster: Cluster
    directory: str

    def up(self, host: str = LOGIN, *, hpk: str = "hpk") -> str:
        """Start it on a host; what `hpk up` said."""
        done = self.cluster.run([hpk, "up"], host=host, timeout_s=300)
        return done.stdout + done.stderr

    def down(self, host: str = LOGIN) -> None:
        """Stop it, wherever it runs."""
        self.cluster.run(["hpk", "down", "--keep-jobs"], host=host)

    def status(self) -> Json:
        """`hpk status -o json`."""
        done = self.cluster.run(["hpk", "status", "-o", "json"], check=False)
        answer: Json = json.loads(done.stdout)
        return answer

    def is_ready_without(self, pid: int) -> bool:
        """Whether all components are up, and none is this process."""
        status = self.status()
        return status["health"] == "ready" and pid not in {
            component["pid"] for component in status["components"]
        }

    def jobs(self) -> dict[str, list[str]]:
        """The state of every Slurm job that ever was, by the Pod's name."""
        done = self.cluster.run(["sacct", "-nXP", "-S", "now-1days", "-o", "State,JobName"])
        found: dict[str, list[str]] = {}
        for line in done.stdout.splitlines():
            state, _, job = line.partition("|")
            namespace, _, name = job.partition("@")[0].partition("/")
            if namespace == self.cluster.namespace:
                found.setdefault(name, []).append(state)
        return found

    def artifact(self, name: str) -> str:
        """The supervisor's program that the Pod's job runs, by its hash."""
        script = self.cluster.run(["hpk", "script", name, "-n", self.cluster.namespace]).stdout
        found = re.search(r"supervisor-([0-9a-f]{64})\.pyz", script)
        assert found is not None, script
        return found[1]

    def install_later_version(self) -> str:
        """A copy of what is installed that speaks a later protocol; the path of its hpk."""
        target = f"{self.directory}/later"
        self.cluster.run(["bash", "-c", LATER, "-", target])
        return f"{target}/bin/hpk"

    def write(self, name: str, text: str = "") -> None:
        """A file that the pods see under /shared."""
        self.cluster.run(["tee", f"{self.directory}/shared/{name}"], stdin=text)

    def ran(self) -> list[str]:
        """The pod's name for each start of a container of its, MPI ranks counted one by one."""
        return self.cluster.read(f"{self.directory}/shared/ran").split()

    def identity(self) -> Json:
        """What makes this cluster the one it is."""
        names = ("namespaces", "serviceaccounts", "pods", "secrets")
        listed = [self.cluster.get(name)["items"] for name in names]
        return {
            "ca": self.cluster.read(f"{self.directory}/.hpk/pki/api-ca.crt"),
            "system": self.cluster.get("namespace", "kube-system")["metadata"]["uid"],
            "objects": {
                f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"]
                for items in listed
                for item in items
            },
        }

    def pod(self, name: str, *command: str, image: str = BUSYBOX, flags: str = "") -> Json:
        """A Pod that shares the directory."""
        made = pod(
            name,
            *command,
            image=image,
            annotations={"slurm-job.hpk.io/flags": flags} if flags else None,
            container={
                "env": [{"name": "POD", "value": name}],
                "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
            },
            resources={"requests": {"cpu": "100m", "memory": "128Mi"}},
            spec={
                "volumes": [{"name": "shared", "hostPath": {"path": f"{self.directory}/shared"}}],
                "terminationGracePeriodSeconds": 1,
            },
        )
        made["metadata"]["labels"] = {"word": "first"}
        return made

    def wait_seen(self, hosts: Mapping[str, int]) -> None:
        """Give pods a new label, and wait until each host of each has read it back.

        :param hosts: how many, by the pod's name.
        """
        word = secrets.token_hex(4)
        self.cluster.kubectl("label", "--overwrite", "pod", *hosts, f"word={word}")
        missing = dict(hosts)

        def look() -> bool:
            for name, count in list(missing.items()):
                lines = self.cluster.logs(name, "--tail=40").splitlines()
                if len({line for line in lines if line.endswith(f" saw {word}")}) == count:
                    del missing[name]
            return not missing

        eventually(look, timeout_s=120, what=f"{missing} to read {word}")


@pytest.fixture(scope="module")
def plane(machine: Machine) -> Iterator[Plane]:
    """Running on the login node, with pods that run, that wait for a sign, and that are queued."""
    directory = f"/home/alice/sharing-{secrets.token_hex(4)}"
    namespace = f"t-{secrets.token_hex(3)}"
    cluster = Cluster(
        machine=machine, user="alice", namespace=namespace, hpk_home=f"{directory}/.hpk"
    )
    made = Plane(cluster=cluster, directory=directory)
    cluster.run(["mkdir", "-p", f"{directory}/shared"])
    for image in (BUSYBOX, API_CLIENT):
        cluster.run(["hpk", "images", "pull", image], timeout_s=600)
    try:
        made.up()
        cluster.kubectl("create", "namespace", namespace)
        cluster.kubectl("create", "role", "reader", "--verb=get", "--resource=pods")
        subject = f"--serviceaccount={namespace}:default"
        cluster.kubectl("create", "rolebinding", "reader", "--role=reader", subject)
        client = ("python3", "-c", CLIENT)
        ranks = made.pod("ranks", *client, image=API_CLIENT, flags="--nodes=2 --ntasks-per-node=2")
        ranks["metadata"]["annotations"]["slurm-job.hpk.io/mpi-flags"] = "true"
        podman = made.pod("podman", *client, image=API_CLIENT)
        podman["metadata"]["annotations"] = {"slurm-job.hpk.io/runtime": "podman"}
        cluster.create(
            made.pod("client", *client, image=API_CLIENT),
            podman,
            ranks,
            made.pod("ends", "sh", "-c", ENDS),
            made.pod("queued", "sh", "-c", ENDS, flags="--begin=now+1hour"),
        )
        cluster.wait_pods(
            ("client", "podman", "ranks", "ends"), lambda item: item["status"]["phase"] == "Running"
        )
        made.wait_seen(CLIENTS)
        yield made
    finally:
        cluster.run(["hpk", "down", "--cancel-jobs"], check=False)
        cluster.run(["rm", "-rf", directory])


def test_unmodified_clients_reach_the_api_server_on_every_node(plane: Plane) -> None:
    for name in CLIENTS:
        lines = plane.cluster.logs(name).splitlines()
        said = {line.partition(" ")[2] for line in lines if not re.search(" (saw|port) ", line)}
        assert said == {
            "address 127.0.0.1",
            "without the CA: refused",
            "with the CA: 127.0.0.1",
            "with the CA: kubernetes.default.svc",
            "with the CA: kubernetes.default.svc.cluster.local",
        }


def test_the_way_to_the_api_server_is_the_pods_users_own(plane: Plane) -> None:
    cluster = plane.cluster
    log = cluster.logs("client")
    port = next(line.rpartition(" ")[2] for line in log.splitlines() if " port " in line)
    (job,) = cluster.job_ids("client")
    node = cluster.run(["squeue", "-h", "-j", str(job), "-o", "%N"]).stdout.strip()
    ask = ["python3", "-I", "-c", STRANGER, port]
    assert cluster.run(ask, host=node).stdout == "answered\n"
    assert cluster.run(ask, host=node, user="bob").stdout == "closed\n"


def everything_goes_on(plane: Plane) -> None:
    """Clients read what the control plane of this moment has, and nothing ran twice or ended."""
    pods, jobs, started = plane.cluster.pods(), plane.jobs(), Counter(plane.ran())
    for name in CLIENTS:
        assert pods[name]["status"]["phase"] == "Running"
        assert jobs[name] == ["RUNNING"]
    assert [started[name] for name in ("client", "podman", "ranks", "ends")] == [1, 1, 4, 1]
    assert len(plane.cluster.job_ids("queued")) == 1  # accounting shows it once it is eligible
    assert len(jobs["ends"]) == 1
    plane.wait_seen(CLIENTS)


def test_up_elsewhere_while_it_is_up_says_where_and_changes_nothing(plane: Plane) -> None:
    before = plane.status()
    said = plane.up(ELSEWHERE)
    assert f"up already, on host {before['host']}" in said
    assert plane.status()["pid"] == before["pid"]
    everything_goes_on(plane)


def test_moved_to_another_host(plane: Plane) -> None:
    before = plane.identity()
    plane.down()
    plane.write("ends.go")  # what ends meanwhile is told afterwards
    plane.up(ELSEWHERE)
    assert plane.status()["host"] == ELSEWHERE
    assert plane.identity() == before
    found = terminated(plane.cluster.wait_phase("ends", "Failed"))
    assert (found["exitCode"], found["reason"]) == (3, "Error")
    everything_goes_on(plane)
    (job,) = plane.cluster.job_ids("queued")
    plane.cluster.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])
    plane.cluster.wait_phase("queued", "Running", timeout_s=180)
    eventually(lambda: plane.ran().count("queued") == 1, what="the queued pod's only start")


def test_moved_into_a_job(plane: Plane) -> None:
    before = plane.identity()
    plane.down(ELSEWHERE)
    script = f"{plane.directory}/hpk-start.sh"
    text = plane.cluster.run(["hpk", "up", "--print-batch-script"]).stdout
    plane.cluster.run(["tee", script], stdin=text)
    submitted = plane.cluster.run(
        ["sbatch", "--parsable", "--mem=2G", f"--chdir={plane.directory}", script]
    )
    try:
        eventually(
            lambda: plane.status()["health"] == "ready", timeout_s=180, what="ready in the job"
        )
        assert plane.status()["job_id"] == int(submitted.stdout)
        assert plane.identity() == before
        everything_goes_on(plane)
        assert f"in Slurm job {submitted.stdout.strip()}" in plane.up()
    finally:
        plane.down()
        plane.up()
    everything_goes_on(plane)


def test_components_killed_in_turn_come_back(plane: Plane) -> None:
    host = plane.status()["host"]
    plane.cluster.run(["tee", f"{plane.directory}/.hpk/endpoint.json"], stdin='{"api_port": "x"')
    for component in plane.status()["components"]:
        plane.cluster.run(["kill", "-9", str(component["pid"])], host=host)
        eventually(
            functools.partial(plane.is_ready_without, component["pid"]),
            timeout_s=180,
            what=f"{component['name']} started again",
        )
    everything_goes_on(plane)


@pytest.mark.long
def test_a_host_that_died_is_followed_when_its_heartbeat_stays_out(plane: Plane) -> None:
    before, status = plane.identity(), plane.status()
    pids = [status["pid"], *(component["pid"] for component in status["components"])]
    plane.cluster.run(["kill", "-9", *map(str, pids)], host=status["host"])
    there = ELSEWHERE if status["host"] == LOGIN else LOGIN
    said = plane.up(there)
    assert (
        f"once the one on host {status['host']} (process {status['pid']}) has been silent" in said
    )
    assert plane.status()["host"] == there
    assert plane.identity() == before
    everything_goes_on(plane)


def test_a_later_version_takes_over_and_an_earlier_one_again(plane: Plane) -> None:
    cluster = plane.cluster
    cluster.create(plane.pod("old", "sleep", "100000"))
    cluster.wait_phase("old", "Running", timeout_s=180)
    plane.down()
    later = plane.install_later_version()
    plane.up(hpk=later)
    everything_goes_on(plane)

    cluster.create(plane.pod("new", "python3", "-c", CLIENT, image=API_CLIENT))
    cluster.wait_phase("new", "Running", timeout_s=180)
    plane.wait_seen({"new": 1})
    assert plane.artifact("new") != plane.artifact("old") == plane.artifact("client")
    cluster.kubectl("delete", "pod", "old", "--timeout=60s")

    plane.down()
    plane.up()
    event = eventually(
        lambda: [e for e in cluster.events("new") if e["reason"] == "SupervisorTooNew"],
        what="an Event about the protocol",
    )
    assert "speaks protocol 1000, this kubelet" in event[0]["message"]
    plane.wait_seen({"new": 1})  # by what it writes to the disk
    everything_goes_on(plane)
    assert plane.ran().count("new") == 1
    cluster.kubectl("delete", "pod", "new", "--timeout=60s")
