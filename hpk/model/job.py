"""What Slurm says of a job."""

from __future__ import annotations

from enum import Enum
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.model.ids import SlurmJobId


class JobState(str, Enum):
    """Slurm's base job states, and UNKNOWN for a job that nobody speaks of.

    Source: squeue(1), "JOB STATE CODES". Absence is UNKNOWN, never success.
    """

    PENDING = "PENDING"
    CONFIGURING = "CONFIGURING"
    RUNNING = "RUNNING"
    COMPLETING = "COMPLETING"
    SUSPENDED = "SUSPENDED"
    STOPPED = "STOPPED"
    REQUEUED = "REQUEUED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    REQUEUE_FED = "REQUEUE_FED"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    RESIZING = "RESIZING"
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    STAGE_OUT = "STAGE_OUT"
    REVOKED = "REVOKED"
    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    DEADLINE = "DEADLINE"
    FAILED = "FAILED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PREEMPTED = "PREEMPTED"
    TIMEOUT = "TIMEOUT"
    UNKNOWN = "UNKNOWN"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended for good."""
        return self in TERMINAL_STATES

    @property
    def is_queued(self) -> bool:
        """Whether the job has no nodes yet, so that its supervisor has not run."""
        return self in QUEUED_STATES


TERMINAL_STATES = frozenset(
    {
        JobState.BOOT_FAIL,
        JobState.CANCELLED,
        JobState.COMPLETED,
        JobState.DEADLINE,
        JobState.FAILED,
        JobState.NODE_FAIL,
        JobState.OUT_OF_MEMORY,
        JobState.PREEMPTED,
        JobState.REVOKED,
        JobState.TIMEOUT,
    }
)
QUEUED_STATES = frozenset(
    {
        JobState.PENDING,
        JobState.REQUEUED,
        JobState.REQUEUE_HOLD,
        JobState.REQUEUE_FED,
        JobState.RESV_DEL_HOLD,
        JobState.SPECIAL_EXIT,
    }
)


@dataclass(frozen=True)
class JobObservation:
    """One job as squeue or sacct shows it at one moment.

    :param reason: Slurm's reason for waiting or ending (``Resources``, ``Priority``), "" if none.
    :param nodes: hostlist expression (``n[1-2]``), "" while queued.
    :param exit_code: of the batch script, 0–255; None while it runs.
    :param signal: the signal that ended the batch script, 0 if none.
    :param start_time_s: Unix seconds; expected start for queued jobs; None if unknown.
    :param source: ``squeue`` or ``sacct``.
    :param command: what was submitted: the batch script's path, or the command line that holds it;
        "" where Slurm does not tell.
    """

    job_id: SlurmJobId
    name: str
    state: JobState
    reason: str
    nodes: str
    exit_code: Optional[int]
    signal: int
    start_time_s: Optional[float]
    end_time_s: Optional[float]
    source: str
    command: str = ""


@dataclass(frozen=True)
class Partition:
    """A Slurm partition this user may submit to, with its nodes summed up.

    Memory in bytes, time in seconds; None is Slurm's UNLIMITED or not set.

    :param max_node_cpus: CPUs of its largest node; max_node_memory_bytes and max_node_gpus alike.
    :param gpus: GRES of name ``gpu``, summed over nodes.
    """

    name: str
    is_default: bool
    is_up: bool
    nodes: tuple[str, ...]
    max_time_s: Optional[int]
    default_time_s: Optional[int]
    default_memory_per_cpu_bytes: Optional[int]
    default_memory_per_node_bytes: Optional[int]
    total_cpus: int
    total_memory_bytes: int
    gpus: int
    max_node_cpus: int
    max_node_memory_bytes: int
    max_node_gpus: int
    features: tuple[str, ...]
