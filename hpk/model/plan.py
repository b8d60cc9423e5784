"""PodPlan: the immutable translation of a Pod.

Built by hpk.planning, read by hpk.render (the sbatch script) and, as ``pod.json``, by the
supervisor in the job. It holds no Secret's and no token's value: those come in the bundle
(hpk.model.bundle) when the job starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Optional

from hpk.model.ids import Nonce, PodRef
from hpk.model.resources import ContainerResources


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


@dataclass(frozen=True)
class EnvVar:
    """One variable of a container's environment, in the order the Pod gives."""

    name: str
    value: str


@dataclass(frozen=True)
class VolumeMount:
    """``spec.containers[].volumeMounts[]``, for volumes of the bundle."""

    volume: str
    mount_path: str
    read_only: bool


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
    :param user: ``UID`` or ``UID:GID`` in numbers, resolved from the image's USER.
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


@dataclass(frozen=True)
class TokenSource:
    """A service-account token of a projected volume, requested when the job starts."""

    path: str
    audience: str
    expiration_s: int


@dataclass(frozen=True)
class KeyToPath:
    """One key of a ConfigMap, and the file it becomes."""

    key: str
    path: str


@dataclass(frozen=True)
class ConfigMapSource:
    """A ConfigMap of a projected volume; no items: every key."""

    name: str
    items: tuple[KeyToPath, ...]
    optional: bool


@dataclass(frozen=True)
class DownwardItem:
    """A field of the Pod as a file; only fields known at admission, so the value is here."""

    path: str
    value: str


@dataclass(frozen=True)
class ProjectedVolume:
    """``spec.volumes[].projected``; its files come in the bundle."""

    name: str
    default_mode: int
    tokens: tuple[TokenSource, ...]
    config_maps: tuple[ConfigMapSource, ...]
    downward: tuple[DownwardItem, ...]


@dataclass(frozen=True)
class SbatchOption:
    """One long option of sbatch (``ntasks``, ``4``); value None for a bare flag (``exclusive``).

    :param origin: what asked for it, for `hpk explain`: a field path or an annotation's name.
    """

    name: str
    value: Optional[str]
    origin: str


@dataclass(frozen=True)
class PodPlan:
    """A Pod as a Slurm job.

    :param partition: the Slurm partition of the virtual node the Pod was bound to.
    :param options: sbatch options in the order they are written, each name once.
    :param grace_period_s: ``spec.terminationGracePeriodSeconds``.
    :param active_deadline_s: ``spec.activeDeadlineSeconds``, counted from the start of the pod.
    :param runtime: name in hpk.runtimes' registry (``apptainer``).
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
    """

    endpoint_path: str
    channel_ca_path: str
    heartbeat_path: str
    orphan_timeout_s: int
    local_root: str
    runtime_path: tuple[str, ...]
    kill_wait_s: int = 30


@dataclass(frozen=True)
class JobSpec:
    """``pod.json``: all that the supervisor reads from the disk when it starts."""

    plan: PodPlan
    nonce: Nonce
    settings: SupervisorSettings
