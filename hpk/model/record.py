"""SupervisorRecord: what the supervisor knows of its pod, written to disk and sent up the channel.

A record whose phase is FINISHED, once synced, decides about the pod's containers whatever Slurm
says of the job.
"""

from __future__ import annotations

from enum import Enum
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.model.ids import Nonce, PodUid, SlurmJobId

RECORD_VERSION = 1


class ContainerPhase(str, Enum):
    """The three states of ``v1.ContainerState``."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


class PodPhase(str, Enum):
    """How far the supervisor has come."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


class StopCause(str, Enum):
    """Why the supervisor stopped its pod, or let it end."""

    COMPLETED = "completed"
    """The containers ended by themselves and the restart policy lets them rest."""
    REQUESTED = "requested"
    """The kubelet asked (the Pod was deleted)."""
    SIGNALLED = "signalled"
    """SIGTERM from Slurm: cancelled, timed out or preempted; Slurm's own state says which."""
    DEADLINE = "deadline"
    """activeDeadlineSeconds passed."""
    ORPHANED = "orphaned"
    """No control plane for orphan_timeout_s."""
    EVICTED = "evicted"
    """An emptyDir outgrew its sizeLimit; the record's message says which."""
    SETUP_FAILED = "setup-failed"
    """Nothing could be started; the record's message says why."""


@dataclass(frozen=True)
class ContainerState:
    """One state of a container. Times in Unix seconds; the rest as ``v1.ContainerState*``.

    :param exit_code: 0–255, as a shell reports it (128 + signal); None unless terminated.
    """

    phase: ContainerPhase
    reason: str = ""
    message: str = ""
    exit_code: Optional[int] = None
    signal: int = 0
    started_at_s: Optional[float] = None
    finished_at_s: Optional[float] = None


@dataclass(frozen=True)
class ContainerRecord:
    """One container.

    :param container_id: unique for each start, without the ``runtime://`` prefix; "" before.
    :param log_path: of the current start's log, relative to the attempt's directory.
    :param last_container_id: of the start that ``last_state`` is about.
    :param started: ``v1.ContainerStatus.started``: it runs, and its startup probe has succeeded.
        None from a supervisor that knows no probes: wherever it runs.
    :param ready: ``v1.ContainerStatus.ready``; None alike.
    """

    name: str
    state: ContainerState
    last_state: Optional[ContainerState]
    restart_count: int
    container_id: str
    log_path: str
    last_container_id: str = ""
    started: Optional[bool] = None
    ready: Optional[bool] = None


@dataclass(frozen=True)
class ContainerEvent:
    """Something that happened to a container and is worth an Event of the Pod.

    :param count: how often, with these very words, between ``first_at_s`` and ``last_at_s``.
    """

    container: str
    is_warning: bool
    reason: str
    message: str
    count: int
    first_at_s: float
    last_at_s: float


@dataclass(frozen=True)
class SupervisorRecord:
    """The pod, as its supervisor sees it.

    :param seq: grows with each change, so that a late frame is never taken for news.
    :param host: Slurm's name of the node the supervisor runs on.
    :param host_ip: the address other nodes reach that node at.
    :param ephemeral_containers: those that the kubelet has told of.
    :param events: the latest, oldest first.
    :param channel_port: of ``host_ip``, where the kubelet may dial a supervisor that cannot dial
        it; 0 where it can.
    :param pod_ips: the pod's addresses, the first is its ``podIP``; () from a supervisor that knows
        no network but the node's.
    """

    version: int
    uid: PodUid
    nonce: Nonce
    job_id: SlurmJobId
    seq: int
    phase: PodPhase
    host: str
    host_ip: str
    started_at_s: float
    containers: tuple[ContainerRecord, ...]
    finished_at_s: Optional[float] = None
    stop_cause: Optional[StopCause] = None
    message: str = ""
    init_containers: tuple[ContainerRecord, ...] = ()
    events: tuple[ContainerEvent, ...] = ()
    pod_ips: tuple[str, ...] = ()
    ephemeral_containers: tuple[ContainerRecord, ...] = ()
    channel_port: int = 0

    @property
    def all_containers(self) -> tuple[ContainerRecord, ...]:
        """Of every kind."""
        return (*self.init_containers, *self.containers, *self.ephemeral_containers)
