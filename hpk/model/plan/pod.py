"""A Pod as a Slurm job: its containers and volumes, and the options of sbatch."""

from __future__ import annotations

from enum import Enum
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.model.ids import PodRef
from hpk.model.plan.container import ContainerPlan
from hpk.model.plan.volumes import EmptyDirVolume, HostPathVolume, ProjectedVolume


class RestartPolicy(str, Enum):
    """``spec.restartPolicy``."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


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
    :param shares_processes: ``spec.shareProcessNamespace``.
    :param sysctls: of the pod's own namespaces: names with dots, and values.
    :param ephemeral_containers: what was added to it since it was made; never in ``pod.json``.
    :param orphan_timeout_s: how long it goes on without a sign of a control plane, 0 for ever, None
        as long as SupervisorSettings has it.
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
    shares_processes: bool = False
    orphan_timeout_s: Optional[int] = None
    ephemeral_containers: tuple[ContainerPlan, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    @property
    def all_containers(self) -> tuple[ContainerPlan, ...]:
        """Of every kind."""
        return (*self.init_containers, *self.containers, *self.ephemeral_containers)
