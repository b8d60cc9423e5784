"""One home, used from several hosts and by several versions: pods go on, and nothing runs twice.

All tests share one control plane of a home of its own and the pods on it, and move it about. A pod
that runs says with each of its starts and ends so in a file, and asks the API server for itself all
the time, as any program made for Kubernetes would.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from tests.e2e.cluster import API_CLIENT, BUSYBOX, Cluster, Json, eventually, pod

pytestmark = pytest.mark.e2e
ELSEWHERE = "n4"
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
        print(socket.gethostname(), "saw", seen.metadata.uid, word, flush=True)
    except Exception as error:
        print(socket.gethostname(), "failed", type(error).__name__, flush=True)
    time.sleep(0.5)
"""
ENDS = 'echo $POD >> /shared/ran; until [ -e "/shared/$POD.go" ]; do sleep 0.2; done; exit 3'


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

    def write(self, name: str, text: str = "") -> None:
        """A file that the pods see under /shared."""
        self.cluster.run(["tee", f"{self.directory}/shared/{name}"], stdin=text)

    def ran(self) -> list[str]:
        """The pod's name for each start of a container of its, MPI ranks counted one by one."""
        return sorted(self.cluster.read(f"{self.directory}/shared/ran").split())

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

    def wait_seen(self, name: str, hosts: int = 1) -> None:
        """Give the pod a new label, and wait until each of its hosts has read it back."""
        word = secrets.token_hex(4)
        uid = self.cluster.get("pod", name)["metadata"]["uid"]
        self.cluster.kubectl("label", "--overwrite", "pod", name, f"word={word}")

        def look() -> bool:
            lines = self.cluster.logs(name, "--tail=40").splitlines()
            return len({line for line in lines if line.endswith(f" saw {uid} {word}")}) == hosts

        eventually(look, timeout_s=120, what=f"{hosts} hosts of {name} to read {word}")


@pytest.fixture(scope="module")
def plane(machine: Machine) -> Iterator[Plane]:
    """Running on the login node, with pods that run, that wait for a sign, and that are queued."""
    directory = f"/home/alice/sharing-{secrets.token_hex(4)}"
    cluster = Cluster(machine=machine, user="alice", hpk_home=f"{directory}/.hpk")
    made = Plane(cluster=cluster, directory=directory)
    cluster.run(["mkdir", "-p", f"{directory}/shared"])
    for image in (BUSYBOX, API_CLIENT):
        cluster.run(["hpk", "images", "pull", image], timeout_s=600)
    try:
        made.up()
        role = ["--verb=get", "--resource=pods"]
        cluster.kubectl("create", "role", "reader", *role)
        subject = "--serviceaccount=default:default"
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
        yield made
    finally:
        cluster.run(["hpk", "down", "--cancel-jobs"], check=False)
        cluster.run(["rm", "-rf", directory])


def test_unmodified_clients_reach_the_api_server_on_every_node(plane: Plane) -> None:
    for name, hosts in (("client", 1), ("podman", 1), ("ranks", 2)):
        plane.wait_seen(name, hosts)
        lines = plane.cluster.logs(name).splitlines()
        said = {line.partition(" ")[2] for line in lines if " saw " not in line}
        assert said == {
            "address 127.0.0.1",
            "without the CA: refused",
            "with the CA: 127.0.0.1",
            "with the CA: kubernetes.default.svc",
            "with the CA: kubernetes.default.svc.cluster.local",
        }
