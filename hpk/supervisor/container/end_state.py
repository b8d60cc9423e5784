"""How one start of a container ended, for its record."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Optional

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


def end_state(ending: Ending, pod: PodContext, writer: LogWriter) -> ContainerState:
    """The container's state; reads its termination message."""
    status = ending.status
    if ending.start_error or status is None:
        return termination.not_started(ending.plan.name, ending.start_error, ending.finished_at_s)
    if status != 0 and ending.first_failure:
        status = ending.first_failure << 8
    code, _ = termination.exit_code_of(status)
    return termination.ended(
        status,
        message=_message(ending, pod, writer, code),
        oom=ending.had_oom and (pod.is_alone or code == 128 + signal.SIGKILL),
        started_at_s=ending.started_at_s,
        finished_at_s=ending.finished_at_s,
    )


def _message(ending: Ending, pod: PodContext, writer: LogWriter, code: int) -> str:
    plan = ending.plan
    path = mounts.message_file(ending.directory)
    if plan.mpi is not None:
        path = rank_files.termination_message(pod.layout, plan.name, ending.number)
    text = termination.read_message(path)
    wants_log = plan.termination_message_policy == termination.FALLBACK_TO_LOGS
    if text or code == 0 or not wants_log:
        return text
    _, tail = writer.read(max(0, writer.end - _TAIL_BYTES), _TAIL_BYTES)
    return termination.message_from_log(tail)
