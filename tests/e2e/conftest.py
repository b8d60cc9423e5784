"""A control plane of the lab's own user, for all end-to-end tests.

Every test works in a namespace of its own, which is deleted with all it holds; the control plane
is one for the whole run, stopped in the end with all its jobs. The lab is the tests' own; one that
was up before stays up.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

import pytest

from bootstrap.lab import control, registry, software
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from hpk.statefs import HpkPaths
from tests.e2e.canary import others_go_on as others_go_on
from tests.e2e.cluster import BUSYBOX, ENTRYPOINT, LAMMPS, Cluster, eventually
from tests.labs import LAB, Silent


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The lab, up, with this checkout installed and its images in the registry."""
    was_up = control.find(LAB).init_pid(LOGIN) is not None
    asyncio.run(control.up(LAB, None, Silent()))
    made = control.find(LAB)
    if was_up:
        asyncio.run(software.install(made.lab))
    asyncio.run(registry.ensure_images(made, HpkPaths.from_environment().cache, Silent()))
    yield made
    if not was_up:
        asyncio.run(control.down(LAB))


@pytest.fixture(scope="session")
def control_plane(machine: Machine) -> Iterator[Cluster]:
    """alice's control plane, running."""
    cluster = Cluster(machine=machine, user="alice")
    # One that runs already runs the code it was started with.
    cluster.run(["hpk", "down", "--keep-jobs"], check=False)
    # No test waits for a conversion, which takes minutes where other work shares the machine.
    for image in (BUSYBOX, ENTRYPOINT, LAMMPS):
        cluster.run(["hpk", "images", "pull", image], timeout_s=600)
    cluster.run(["hpk", "up"], timeout_s=180)
    yield cluster
    cluster.run(["hpk", "down", "--cancel-jobs"], timeout_s=120)


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
