"""PodPlan: the immutable translation of a Pod.

Built by hpk.planning, read by hpk.render (the sbatch script) and, as ``pod.json``, by the
supervisor in the job. It holds no Secret's and no token's value: those come in the bundle
(hpk.model.bundle) when the job starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from hpk.model.handlers import NO_LIFECYCLE, NO_PROBES, ContainerProbes, Lifecycle
from hpk.model.ids import Nonce, PodRef
from hpk.model.resources import ContainerResources

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""A container's PATH where neither its image nor its Pod gives one, as other runtimes have it."""


class RestartPolicy(str, Enum):
    """``spec.restartPolicy``."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


@dataclass(frozen=True)
class ImageConfig:
    """The part of an OCI image configuration that decides what runs.

    Source: OCI image-spec, config.md ("config" object).
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""


@dataclass(frozen=True)
class ImagePlan:
    """An image, resolved.

    :param reference: as the Pod spells it.
    :param image_id: ``repository@sha256:…``, reported as the container's imageID.
    :param path: the converted image (SIF) on a file system that compute nodes see.
    :param passwd: the image's own /etc/passwd, "" where it has none.
    :param group: the image's own /etc/group, "" where it has none.
    """

    reference: str
    image_id: str
    path: str
    config: ImageConfig
    passwd: str = ""
    group: str = ""


class EnvKind(str, Enum):
    """Where a variable's value comes from when the Pod does not give it, as the Pod spells it."""

    CONFIG_MAP_KEY = "configMapKeyRef"
    SECRET_KEY = "secretKeyRef"  # noqa: S105 - a field name
    FIELD = "fieldRef"
    RESOURCE_FIELD = "resourceFieldRef"
    CONFIG_MAP = "configMapRef"
    SECRET = "secretRef"  # noqa: S105 - a field name


@dataclass(frozen=True)
class EnvSource:
    """``env[].valueFrom``, or one entry of ``envFrom``. The kubelet resolves it into the bundle.

    :param name: of the ConfigMap or Secret; of the container for a resource field.
    :param key: in it; ``fieldPath`` or ``resource`` for the fields; "" for ``envFrom``.
    :param prefix: of ``envFrom``.
    :param divisor: of ``resourceFieldRef``, as the Pod spells it.
    """

    kind: EnvKind
    name: str = ""
    key: str = ""
    optional: bool = False
    prefix: str = ""
    divisor: str = ""


@dataclass(frozen=True)
class EnvVar:
    """One variable of a container's environment, in the order the Pod gives.

    :param value: with its ``$(VAR)`` expanded, unless the container's environment is late.
    :param source: where the value comes from instead.
    """

    name: str
    value: str
    source: Optional[EnvSource] = None


@dataclass(frozen=True)
class VolumeMount:
    """``spec.containers[].volumeMounts[]``.

    :param sub_path: within the volume, checked: no "..", not absolute; "" for the whole.
    """

    volume: str
    mount_path: str
    read_only: bool
    sub_path: str = ""


@dataclass(frozen=True)
class MpiPlan:
    """How the main container's command becomes the ranks of an MPI run.

    :param launcher: name in hpk.mpi's registry (``pmix``).
    :param options: options for the launcher's srun, already checked; argv, never shell text.
    """

    launcher: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContainerPlan:
    """One container, with everything the supervisor needs to start it.

    :param argv: what runs: the Pod's command and args over the image's ENTRYPOINT and CMD.
    :param env: the image's environment, then the Pod's; later entries win.
    :param working_dir: "" for the runtime's default ("/").
    :param uid: ``runAsUser``, else the image's USER in numbers, else 0; gid alike.
    :param env_from: ``envFrom``, beneath ``env``.
    :param late: environment and argv depend on what only the kubelet can tell when the job starts:
        they come, expanded, as the container's ContainerBundle, and those here are unexpanded.
    :param restart_always: of an init container: a sidecar (``restartPolicy: Always``).
    :param read_only_root: ``securityContext.readOnlyRootFilesystem``.
    :param dropped_capabilities: ``securityContext.capabilities.drop``, each in capitals without
        ``CAP_``, or ``ALL``: taken from the bounding set before the program is executed.
    :param probes: none for an init container that is no sidecar.
    """

    name: str
    image: ImagePlan
    argv: tuple[str, ...]
    env: tuple[EnvVar, ...]
    working_dir: str
    uid: int
    gid: int
    mounts: tuple[VolumeMount, ...]
    resources: ContainerResources
    termination_message_path: str
    termination_message_policy: str
    mpi: Optional[MpiPlan] = None
    env_from: tuple[EnvSource, ...] = ()
    late: bool = False
    restart_always: bool = False
    read_only_root: bool = False
    dropped_capabilities: tuple[str, ...] = ()
    probes: ContainerProbes = NO_PROBES
    lifecycle: Lifecycle = NO_LIFECYCLE


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
    tokens: tuple[TokenSource, ...]
    config_maps: tuple[ConfigMapSource, ...]
    downward: tuple[DownwardItem, ...]
    secrets: tuple[SecretSource, ...] = ()
    order: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class SbatchOption:
    """One long option of sbatch (``ntasks``, ``4``); value None for a bare flag (``exclusive``).

    :param origin: what asked for it, for `hpk explain`: a field path or an annotation's name.
    """

    name: str
    value: Optional[str]
    origin: str


@dataclass(frozen=True)
class HostAlias:
    """``spec.hostAliases[]``, checked: an address, and names without white space."""

    ip: str
    hostnames: tuple[str, ...]


@dataclass(frozen=True)
class PodPlan:
    """A Pod as a Slurm job.

    :param partition: the Slurm partition of the virtual node the Pod was bound to.
    :param options: sbatch options in the order they are written, each name once.
    :param grace_period_s: ``spec.terminationGracePeriodSeconds``.
    :param active_deadline_s: ``spec.activeDeadlineSeconds``, counted from the start of the pod.
    :param runtime: name in hpk.runtimes' registry (``apptainer``).
    :param init_containers: run one after the other, in this order, before the containers.
    :param nodes: how many nodes the job asks for at least, where that is known.
    :param hostname: the containers' host name, "" for the Pod's own; a full name where
        ``setHostnameAsFQDN`` asks for it.
    :param domain: ``SUBDOMAIN.NAMESPACE.svc.CLUSTER_DOMAIN``, "" without a subdomain.
    :param host_network: ``spec.hostNetwork``: the containers have their node's host name.
    """

    pod: PodRef
    partition: str
    options: tuple[SbatchOption, ...]
    containers: tuple[ContainerPlan, ...]
    volumes: tuple[ProjectedVolume, ...]
    restart_policy: RestartPolicy
    grace_period_s: int
    active_deadline_s: Optional[int]
    runtime: str
    service_account: str = "default"
    hostname: str = ""
    init_containers: tuple[ContainerPlan, ...] = ()
    empty_dirs: tuple[EmptyDirVolume, ...] = ()
    host_paths: tuple[HostPathVolume, ...] = ()
    nodes: int = 1
    domain: str = ""
    host_network: bool = False
    host_aliases: tuple[HostAlias, ...] = ()


@dataclass(frozen=True)
class SupervisorSettings:
    """What the supervisor must know of the site and of the control plane. Paths are absolute.

    :param endpoint_path: endpoint.json, read again whenever the channel is lost.
    :param channel_ca_path: the CA that signs the kubelet's channel certificate.
    :param heartbeat_path: a file the control plane touches while it lives, the sign of life where
        no channel can be opened.
    :param orphan_timeout_s: stop the pod when neither channel nor heartbeat was seen for so long.
    :param local_root: parent of the job's node-local directory, e.g. ``/tmp``.
    :param runtime_path: directories to look for the runtime in, before PATH.
    :param kill_wait_s: Slurm's ``KillWait``, which lies between its SIGTERM and its SIGKILL.
    :param own_directories: HPK's own, which no hostPath volume may lie in, links resolved.
    """

    endpoint_path: str
    channel_ca_path: str
    heartbeat_path: str
    orphan_timeout_s: int
    local_root: str
    runtime_path: tuple[str, ...]
    kill_wait_s: int = 30
    own_directories: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobSpec:
    """``pod.json``: all that the supervisor reads from the disk when it starts."""

    plan: PodPlan
    nonce: Nonce
    settings: SupervisorSettings
