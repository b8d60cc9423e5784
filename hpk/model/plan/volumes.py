"""A pod's volumes, one class for each way in which the supervisor fills them, and their mounts."""

from __future__ import annotations

from typing import Optional

from hpk.model.frozen import dataclass
from hpk.model.plan.environment import EnvSource


@dataclass(frozen=True)
class VolumeMount:
    """``spec.containers[].volumeMounts[]``.

    :param sub_path: within the volume, checked: no "..", not absolute; "" for the whole.
    :param sub_path_expr: where it is known only when the container starts: what it is made of. The
        container is late then, and its ContainerBundle says what comes of it.
    """

    volume: str
    mount_path: str
    read_only: bool
    sub_path: str = ""
    sub_path_expr: str = ""


@dataclass(frozen=True)
class TokenSource:
    """A service-account token of a projected volume, requested when the job starts."""

    path: str
    audience: str
    expiration_s: int


@dataclass(frozen=True)
class KeyToPath:
    """One key of a ConfigMap or Secret, and the file it becomes."""

    key: str
    path: str
    mode: Optional[int] = None


@dataclass(frozen=True)
class ConfigMapSource:
    """A ConfigMap of a projected volume; no items: every key."""

    name: str
    items: tuple[KeyToPath, ...]
    optional: bool


@dataclass(frozen=True)
class SecretSource:
    """A Secret of a projected volume; no items: every key."""

    name: str
    items: tuple[KeyToPath, ...]
    optional: bool


@dataclass(frozen=True)
class TrustBundleSource:
    """``clusterTrustBundle`` of a projected volume: one by its name, or those of a signer.

    :param name: "" where ``signer_name`` chooses.
    :param label_selector: among the signer's, as a request to the API server spells it; "" for all
        of them, None for none, as upstream has it.
    """

    path: str
    name: str
    signer_name: str
    label_selector: Optional[str]
    optional: bool


@dataclass(frozen=True)
class PodCertificateSource:
    """``podCertificate`` of a projected volume: a key that the kubelet makes, and a signer's
    certificate for it.

    :param key_type: ``ED25519``, ``ECDSAP256``, ``RSA3072`` …
    :param bundle_path: of key and chain in one file, "" for none; key_path and chain_path alike.
    :param user_annotations: what the signer is told besides.
    """

    signer_name: str
    key_type: str
    max_expiration_s: Optional[int]
    bundle_path: str
    key_path: str
    chain_path: str
    user_annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DownwardItem:
    """A field of the Pod as a file.

    :param value: where it is known at admission and cannot change (namespace, name, uid).
    :param source: else: the kubelet resolves it into the bundle, again when it changes.
    """

    path: str
    value: str
    source: Optional[EnvSource] = None
    mode: Optional[int] = None


@dataclass(frozen=True)
class ProjectedVolume:
    """A volume whose files come in the bundle: projected, configMap, secret or downwardAPI.

    A configMap, secret or downwardAPI volume is a projected one with a single source.

    :param order: for each source (of downward: each item) in the Pod's order, the name of the list
        it is in; of two that give the same path the later one wins. Empty: as the lists stand.
    """

    name: str
    default_mode: int
    tokens: tuple[TokenSource, ...] = ()
    config_maps: tuple[ConfigMapSource, ...] = ()
    downward: tuple[DownwardItem, ...] = ()
    secrets: tuple[SecretSource, ...] = ()
    order: tuple[str, ...] = ()
    trust_bundles: tuple[TrustBundleSource, ...] = ()
    certificates: tuple[PodCertificateSource, ...] = ()


@dataclass(frozen=True)
class EmptyDirVolume:
    """``spec.volumes[].emptyDir``: node-local; on the shared file system in a multi-node pod.

    :param memory: ``medium: Memory``.
    :param size_limit_bytes: None for no limit.
    """

    name: str
    memory: bool
    size_limit_bytes: Optional[int]


@dataclass(frozen=True)
class HostPathVolume:
    """``spec.volumes[].hostPath``: what the user may read or write on the node anyway.

    :param path: absolute, checked: not inside HPK's own directories.
    :param kind: ``type``: "", Directory, DirectoryOrCreate, File, FileOrCreate, Socket, CharDevice
        or BlockDevice.
    """

    name: str
    path: str
    kind: str
