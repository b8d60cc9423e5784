"""The bundle: what a pod needs at its start and must not rest on the shared file system."""

from __future__ import annotations

from hpk.model.frozen import dataclass
from hpk.model.plan import EnvVar

API_PORT_MARK = "\0api-port\0"
"""Stands in variables and words for the API server's port at 127.0.0.1, which each node of a job
has its own of. No variable and no argument can hold a NUL otherwise."""


@dataclass(frozen=True)
class BundleFile:
    """One file of a volume.

    :param path: relative to the volume, checked: no "..", not absolute.
    :param data_base64: its bytes.
    :param mode: permission bits, e.g. 0o644.
    """

    path: str
    data_base64: str
    mode: int


@dataclass(frozen=True)
class BundleVolume:
    """A volume whose files the kubelet provides."""

    name: str
    files: tuple[BundleFile, ...]


@dataclass(frozen=True)
class ContainerBundle:
    """A late container's environment and argv, resolved and expanded.

    :param env: the whole of it, image's and envFrom's included, later entries win; the bundle's
        own ``env`` lies beneath.
    :param sub_paths: of the mounts that have a ``sub_path_expr``, in their order.
    :param error: why the container cannot be started yet (a ConfigMap is missing), "" if it can;
        ``reason`` is upstream's then (``CreateContainerConfigError``).
    """

    name: str
    env: tuple[EnvVar, ...]
    argv: tuple[str, ...]
    error: str = ""
    reason: str = ""
    sub_paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """Everything of one pod, as of one moment.

    :param env: variables for every container, beneath those of the plan (the API server's
        address).
    :param containers: of those that are late.
    """

    volumes: tuple[BundleVolume, ...]
    env: tuple[EnvVar, ...]
    containers: tuple[ContainerBundle, ...] = ()
