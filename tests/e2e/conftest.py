"""A control plane of the lab's own user, for all end-to-end tests.

Every test works in a namespace of its own, which is deleted with all it holds; the control plane
is one for all tests of a process, stopped in the end with all its jobs.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import pytest

from bootstrap.lab.hosts import Machine
from tests.e2e.canary import others_go_on as others_go_on
from tests.e2e.cluster import BUSYBOX, ENTRYPOINT, LAMMPS, Cluster, eventually
from tests.e2e.homes import home as home
from tests.e2e.homes import make_home as make_home
from tests.e2e.walls import wall as wall


@pytest.fixture(scope="session")
def control_plane(machine: Machine) -> Iterator[Cluster]:
    """alice's control plane, running."""
    cluster = Cluster(machine=machine, user="alice")
    # One that runs already runs the code it was started with.
    cluster.run(["hpk", "down", "--keep-jobs"], check=False)
    # No test waits for a conversion, which takes minutes where other work shares the machine.
    for image in (BUSYBOX, ENTRYPOINT, LAMMPS):
        cluster.run(["hpk", "images", "pull", image], timeout_s=600)
    cluster.run(["hpk", "up"], timeout_s=400)
    yield cluster
    cluster.run(["hpk", "down", "--cancel-jobs"], timeout_s=300)


@pytest.fixture
def cluster(control_plane: Cluster) -> Iterator[Cluster]:
    """The control plane, seen from a fresh namespace."""
    with _namespace(control_plane) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared(control_plane: Cluster) -> Iterator[Cluster]:
    """A namespace for all tests of a module, which look at Pods that were started together."""
    with _namespace(control_plane) as fresh:
        yield fresh


@contextlib.contextmanager
def _namespace(control_plane: Cluster) -> Iterator[Cluster]:
    namespace = f"t-{secrets.token_hex(3)}"
    fresh = Cluster(machine=control_plane.machine, user=control_plane.user, namespace=namespace)
    fresh.run(["kubectl", "create", "namespace", namespace])
    eventually(
        lambda: fresh.kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
        what="the namespace's default service account",
    )
    yield fresh
    fresh.run(["kubectl", "delete", "namespace", namespace, "--wait=false"])
