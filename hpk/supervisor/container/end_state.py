"""How one start of a container ended, for its record."""

from __future__ import annotations

import signal
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.model.plan import ContainerPlan
from hpk.model.record import ContainerState
from hpk.supervisor.base import termination
from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.inside import mounts
from hpk.supervisor.ranks import rank_files

_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ending:
    """What is known when a start is over.

    :param number: of the start; ``directory``: its own, on this node.
    :param status: as waitpid gives it, None where the program never ran.
    :param first_failure: exit code of the first rank that failed, 0 where none did.
    :param start_error: why the program could not be started, "" where it could.
    :param had_oom: a process of the job was killed for its memory since the start.
    """

    plan: ContainerPlan
    number: int
    directory: str
    status: Optional[int]
    first_failure: int
    start_error: str
    started_at_s: Optional[float]
    finished_at_s: float
    had_oom: bool


@dataclass(frozen=True)
class LeftBehind:
    """What one start has left on the shared file system.

    :param log_tail: the end of its log, where that may be its termination message.
    :param start_error: why a rank could not start the program.
    :param rank_message: the termination message of the first rank.
    """

    log_tail: bytes = b""
    start_error: str = ""
    rank_message: str = ""


def leaves_something(plan: ContainerPlan) -> bool:
    """Whether there is anything to be read there."""
    return plan.mpi is not None or _falls_back_to_log(plan)


def left_behind(plan: ContainerPlan, number: int, pod: PodContext, writer: LogWriter) -> LeftBehind:
    """Read it.

    :raises OSError: it cannot be read.
    """
    tail = b""
    if _falls_back_to_log(plan):
        _, tail = writer.read(max(0, writer.end - _TAIL_BYTES), _TAIL_BYTES)
    if plan.mpi is None:
        return LeftBehind(log_tail=tail)
    message = rank_files.termination_message(pod.layout, plan.name, number)
    return LeftBehind(
        log_tail=tail,
        start_error=rank_files.start_error(pod.layout, plan.name, number),
        rank_message=termination.read_message(message),
    )


def _falls_back_to_log(plan: ContainerPlan) -> bool:
    return plan.termination_message_policy == termination.FALLBACK_TO_LOGS


def end_state(ending: Ending, pod: PodContext, left: LeftBehind) -> ContainerState:
    """The container's state; reads its termination message on this node."""
    status = ending.status
    if ending.start_error or status is None:
        return termination.not_started(ending.plan.name, ending.start_error, ending.finished_at_s)
    if status != 0 and ending.first_failure:
        status = ending.first_failure << 8
    code, _ = termination.exit_code_of(status)
    text = left.rank_message
    if ending.plan.mpi is None:
        text = termination.read_message(mounts.message_file(ending.directory))
    if not text and code != 0:
        text = termination.message_from_log(left.log_tail)
    return termination.ended(
        status,
        message=termination.cut(text, pod.message_bytes),
        oom=ending.had_oom and (pod.is_alone or code == 128 + signal.SIGKILL),
        started_at_s=ending.started_at_s,
        finished_at_s=ending.finished_at_s,
    )
