"""A container, its image resolved and its command decided."""

from __future__ import annotations

from typing import Optional

from hpk.model.frozen import dataclass
from hpk.model.handlers import NO_LIFECYCLE, NO_PROBES, ContainerProbes, Lifecycle
from hpk.model.plan.environment import EnvSource, EnvVar
from hpk.model.plan.volumes import VolumeMount
from hpk.model.resources import ContainerResources
from hpk.model.rights import DEFAULT_RIGHTS, Rights


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
    :param rights: what ``securityContext`` and the Pod's leave its programs.
    :param selinux: it asks for an SELinux context of its own (``seLinuxOptions``).
    :param probes: none for an init container that is no sidecar.
    :param stdin: its input stays open for who attaches to it.
    :param stdin_once: the first of them ends it.
    :param tty: it has a terminal.
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
    rights: Rights = DEFAULT_RIGHTS
    probes: ContainerProbes = NO_PROBES
    lifecycle: Lifecycle = NO_LIFECYCLE
    selinux: bool = False
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
