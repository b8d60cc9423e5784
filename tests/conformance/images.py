"""Stand-ins for the images that the suite's specs name, of Debian packages and Kubernetes' sources.

Upstream's images are Alpine's and Docker's; what the specs ask of them is the same here. They lie
as OCI layouts in the cache, keyed by what they are made of.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.binaries import Reporter
from bootstrap.components import KUBERNETES_VERSION
from bootstrap.lab.definitions import Configuration
from bootstrap.lab.images import make_layout
from hpk.flock import wait_for_lock
from tests.conformance.layers import LAYERS, VERSION, Materials, make_layer

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_E2E = "e2e-test-images"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """One image.

    :param names: ``NAME:TAG`` in the registry; several where the suite knows several versions.
    :param layers: names in LAYERS, the lowest first.
    """

    names: tuple[str, ...]
    layers: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Configuration:
        """The OCI configuration."""
        return Configuration(
            entrypoint=self.entrypoint,
            cmd=self.cmd,
            env=(_PATH,),
            user=self.user,
            ports=self.ports,
        )


_PAUSE = StandIn(
    names=("pause:3.10.2",), layers=("pause",), entrypoint=("/pause",), user="65535:65535"
)

STAND_INS = (
    _PAUSE,
    StandIn(
        names=(f"{_E2E}/agnhost:2.66.1", f"{_E2E}/agnhost:2.55"),
        layers=("debian", "agnhost"),
        entrypoint=("/agnhost",),
        cmd=("pause",),
        ports=("80", "8080", "8081", "9376", "5000"),
    ),
    StandIn(
        names=(f"{_E2E}/busybox:1.37.0-2", f"{_E2E}/busybox:1.36.1-1"),
        layers=("busybox",),
        cmd=("sh",),
    ),
    *(
        StandIn(
            names=(f"{_E2E}/nginx:{tag}",),
            layers=("debian-nginx", "nginx"),
            cmd=("nginx", "-g", "daemon off;"),
            ports=(port,),
        )
        # Two images, as upstream's are: specs tell them apart by what runs.
        for tag, port in (("1.27.0-2", "80"), ("1.28.0-2", "80/tcp"))
    ),
    StandIn(names=(f"{_E2E}/nonewprivs:1.4",), layers=("busybox", "nnp"), cmd=("nnp",)),
    StandIn(names=(f"{_E2E}/nonroot:1.5",), layers=("debian",), cmd=("bash",), user="1234"),
    StandIn(names=(f"{_E2E}/ipc-utils:1.4",), layers=("debian",), cmd=("sh",)),
    StandIn(
        names=(f"{_E2E}/glibc-dns-testing:2.1.1",), layers=("debian", "coredns"), cmd=("bash",)
    ),
    *(
        StandIn(
            names=(f"{_E2E}/{pet}:1.8",),
            layers=("debian", "agnhost", pet),
            entrypoint=("/agnhost",),
            cmd=("test-webserver",),
        )
        for pet in ("kitten", "nautilus")
    ),
    StandIn(names=(f"{_E2E}/perl:5.26",), layers=("debian",), cmd=("perl",)),
    StandIn(
        names=(f"{_E2E}/resource-consumer:1.14",),
        layers=("debian", "resource-consumer"),
        entrypoint=("/consumer",),
        ports=("8080",),
    ),
    StandIn(
        names=(f"{_E2E}/sample-apiserver:1.29.2",),
        layers=("busybox", "sample-apiserver"),
        entrypoint=("/sample-apiserver",),
    ),
    StandIn(
        names=(f"{_E2E}/regression-issue-74839:1.5",),
        layers=("debian", "regression-issue-74839"),
        entrypoint=("/regression-issue-74839",),
    ),
    StandIn(
        names=(f"{_E2E}/sample-device-plugin:1.7",),
        layers=("busybox", "sampledeviceplugin"),
        entrypoint=("/sampledeviceplugin", "-alsologtostderr"),
    ),
    StandIn(names=("etcd:3.7.0-0",), layers=("busybox", "etcd"), cmd=("etcd",)),
)


def layout_path(cache: Path, image: StandIn) -> Path:
    """Where the image's OCI layout lies, whether or not it is there yet."""
    recipes = [LAYERS[name].recipe for name in image.layers]
    key = hashlib.sha256(repr((VERSION, KUBERNETES_VERSION, image, recipes)).encode()).hexdigest()
    name = image.names[0].rpartition("/")[2].replace(":", "-")
    return cache / "conformance" / "images" / f"{name}-{key[:16]}"


async def ensure(
    cache: Path, programs: Mapping[str, Path], sources: Path, reporter: Reporter
) -> dict[str, Path]:
    """Every image's OCI layout by each of its names; made where it is missing.

    :param programs: the programs of IN_IMAGES.
    :param sources: Kubernetes' module in Go's cache.
    :raises PermanentError: one cannot be made.
    """
    root = cache / "conformance"
    (root / "layers").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    found: dict[str, Path] = {}
    async with wait_for_lock(root / ".lock", lambda: reporter.step("images", "waiting")):
        # The first in the list is the pause image: another holds a copy of it.
        for image in STAND_INS:
            target = layout_path(cache, image)
            materials = Materials(
                programs=programs,
                sources=sources,
                pause=layout_path(cache, _PAUSE),
                cache=root / "layers",
            )
            if not target.exists():
                reporter.step(image.names[0], "making the image")
                await _make(image, target, materials)
            found |= dict.fromkeys(image.names, target)
    return found


async def _make(image: StandIn, target: Path, materials: Materials) -> None:
    layers = [await make_layer(name, materials) for name in image.layers]
    work = target.with_name(f".new-{target.name}")
    await asyncio.to_thread(shutil.rmtree, work, True)
    await make_layout(image.config, work, layers)
    work.replace(target)
