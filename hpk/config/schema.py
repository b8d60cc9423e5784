"""Every setting of ``config.toml``: a table is a class, a key is a field. Data only, no I/O.

An unknown key is an error, for a mistyped setting must not be ignored. Types are those of TOML:
no text is taken for a number. docs/configuration.md describes each setting for users.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from hpk.mpi.registry import LAUNCHERS
from hpk.runtimes.registry import RUNTIMES


def _dashes(name: str) -> str:
    return name.replace("_", "-")


def _network(text: str) -> str:
    network = ipaddress.IPv4Network(text)
    if network.prefixlen > 24:
        raise ValueError("must be a /24 or larger")
    return str(network)


def _address(text: str) -> str:
    return str(ipaddress.IPv4Address(text)) if text else ""


def _absolute(path: str) -> str:
    if path and (not path.startswith("/") or ".." in path.split("/")):
        raise ValueError("must be an absolute path without '..'")
    return path


def _runtime(name: str) -> str:
    if name not in RUNTIMES:
        raise ValueError(f"must be one of {', '.join(RUNTIMES)}")
    return name


def _launcher(name: str) -> str:
    if name not in LAUNCHERS:
        raise ValueError(f"must be one of {', '.join(LAUNCHERS)}")
    return name


def _matching(pattern: str, *, or_empty: bool = True) -> StringConstraints:
    return StringConstraints(pattern=rf"^(?:{pattern}){'?' if or_empty else ''}$", max_length=1024)


DEFAULT_GPUS: Mapping[str, str] = {
    "nvidia.com/gpu": "gpu",
    "amd.com/gpu": "gpu",
    "gpu.intel.com/i915": "gpu",
    "gpu.intel.com/xe": "gpu",
}
"""Resource names of the GPU vendors' device plugins, and Slurm's GRES for them."""


def _with_vendors(gpus: dict[str, str]) -> dict[str, str]:
    return {**DEFAULT_GPUS, **gpus}


Name = Annotated[str, _matching(r"[A-Za-z0-9_.@+-]+")]
Features = Annotated[str, _matching(r"[A-Za-z0-9_.:+*&|()\[\],=-]+")]
Time = Annotated[
    str, _matching(r"[0-9]{1,9}(?::[0-9]{1,2}){0,2}|[0-9]{1,6}-[0-9]{1,2}(?::[0-9]{1,2}){0,2}")
]
Memory = Annotated[str, _matching(r"[1-9][0-9]{0,14}(?:Ki|Mi|Gi|Ti|k|M|G|T)?")]
Gres = Annotated[str, _matching(r"gpu(?::[A-Za-z0-9_.-]+)?", or_empty=False)]
ResourceName = Annotated[str, _matching(r"[a-z0-9.-]+/[A-Za-z0-9_.-]+", or_empty=False)]
NamespaceName = Annotated[str, _matching(r"[a-z0-9-]{1,63}", or_empty=False)]
ProgramName = Annotated[str, _matching(r"[a-z][a-z-]{0,62}", or_empty=False)]
Sha256 = Annotated[str, _matching(r"[0-9a-fA-F]{64}", or_empty=False)]
Whole = Annotated[int, Field(strict=True, gt=0)]


class Table(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=_dashes, populate_by_name=True
    )


class BinariesConfig(Table):
    """``[binaries]``: where upstream's programs come from.

    :param sources: in the order they are tried when a program is not there yet.
    :param mirror: replaces ``https://dl.k8s.io`` and ``https://github.com`` by
        ``MIRROR/dl.k8s.io`` and ``MIRROR/github.com``; of releases, not of their checksums.
    :param sha256: program → checksum its release must have; asked of upstream where it is not here.
    :param proxy: of downloads and of Go's; "" leaves it to ``https_proxy``.
    :param ca_file: certificates to trust for downloads, besides the system's.
    """

    sources: tuple[Literal["download", "build"], ...] = ("download", "build")
    mirror: str = ""
    sha256: dict[ProgramName, Sha256] = {}
    proxy: str = ""
    ca_file: str = ""


class ControlPlaneConfig(Table):
    """``[control-plane]``.

    :param address: IPv4 address of this host that compute nodes reach; "" finds it.
    :param service_cidr: addresses of Services; must not overlap the site's own networks.
    :param orphan_timeout_s: how long a Pod that never ends by itself (restartPolicy Always) goes on
        without any sign of a control plane, 0 for ever.
    :param etcd_data: directory on a disk of the host, for etcd alone: no hostPath volume may lie in
        it. "" keeps the data in ``$HPK_HOME``.
    :param start_timeout_s: how long one component may take to become ready.
    """

    address: Annotated[str, AfterValidator(_address)] = ""
    cluster_name: str = Field(default="hpk", pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")
    cluster_domain: str = Field(default="cluster.local", pattern=r"^[a-z0-9.-]{1,100}$")
    service_cidr: Annotated[str, AfterValidator(_network)] = "100.73.0.0/16"
    orphan_timeout_s: Annotated[int, Field(strict=True, ge=0)] = 7 * 24 * 3600
    etcd_data: Annotated[str, AfterValidator(_absolute)] = ""
    start_timeout_s: Whole = 120


class ImagesConfig(Table):
    """``[images]``.

    :param runtime_path: directories to look for apptainer or singularity in, before PATH.
    :param insecure_registries: ``host[:port]`` of registries spoken to without TLS.
    :param pull_timeout_s: for one image, download and conversion.
    :param scratch: where images are unpacked, best a local disk; "" for TMPDIR, else /tmp.
    :param conversions_at_once: how many images are worked on at the same time, on one host.
    :param processors: how many of the host's one conversion may keep busy.
    """

    runtime_path: tuple[Path, ...] = ()
    insecure_registries: frozenset[str] = frozenset()
    pull_timeout_s: float = Field(default=3600, gt=0, strict=True)
    scratch: str = ""
    conversions_at_once: Whole = 2
    processors: Whole = 2


class SubmitConfig(Table):
    """What sbatch is told of a Pod that does not say itself; "" leaves it to Slurm.

    :param time: for a Pod with neither ``--time`` nor activeDeadlineSeconds; no longer than the
        partition allows.
    """

    account: Name = ""
    qos: Name = ""
    constraint: Features = ""
    time: Time = ""


class SlurmConfig(SubmitConfig):
    """``[slurm]``.

    :param partition: whose virtual node Pods go to that choose none; "" for Slurm's default.
    :param use_partition_max_time: ask for the partition's MaxTime where nothing else gives a time,
        so that no Pod is cut off at DefaultTime.
    """

    partition: Name = ""
    use_partition_max_time: bool = Field(default=True, strict=True)


class PodsConfig(Table):
    """``[pods]``.

    :param runtime: container runtime of a Pod that names none.
    :param mpi_launcher: MPI launcher of a Pod that names none.
    :param default_memory: for a Pod that says nothing of memory; "" leaves it to Slurm.
    :param minimum_memory: the least a job asks for when its Pod speaks of memory.
    :param unsupported_fields: what the API server does with Pods and pod templates that have them.
    """

    runtime: Annotated[str, AfterValidator(_runtime)] = "apptainer"
    mpi_launcher: Annotated[str, AfterValidator(_launcher)] = "pmix"
    default_memory: Memory = ""
    minimum_memory: Memory = "96Mi"
    unsupported_fields: Literal["deny", "warn", "off"] = "deny"


class Config(Table):
    """The whole file.

    :param gpus: a container's resource name → GRES; a file's entries are added to those here.
    :param namespaces: what differs from ``[slurm]`` in one Kubernetes namespace.
    """

    slurm: SlurmConfig = SlurmConfig()
    namespaces: dict[NamespaceName, SubmitConfig] = Field(default_factory=dict)
    pods: PodsConfig = PodsConfig()
    gpus: Annotated[dict[ResourceName, Gres], AfterValidator(_with_vendors)] = Field(
        default_factory=dict, validate_default=True
    )
    images: ImagesConfig = ImagesConfig()
    control_plane: ControlPlaneConfig = ControlPlaneConfig()
    binaries: BinariesConfig = BinariesConfig()
