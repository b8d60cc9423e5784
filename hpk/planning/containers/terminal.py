"""What a container's program reads, and whether it has a terminal. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import UNSUPPORTED

_FIELDS = ("stdin", "tty")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalFields:
    """``stdin``, ``stdinOnce`` and ``tty``."""

    stdin: bool
    stdin_once: bool
    tty: bool


def plan_terminal(container: PodContainer) -> TerminalFields:
    """As the container has them; ``stdinOnce`` without ``stdin`` says nothing."""
    stdin = container.spec.get("stdin") is True
    return TerminalFields(
        stdin=stdin,
        stdin_once=stdin and container.spec.get("stdinOnce") is True,
        tty=container.spec.get("tty") is True,
    )


def refuse_terminal(container: PodContainer) -> None:
    """Refuse them of the container of an MPI run: what its launcher reads goes to all ranks, and a
    rank's output is the launcher's pipe."""
    for name in _FIELDS:
        if container.spec.get(name) is True:
            raise AdmissionError(
                UNSUPPORTED,
                f"{container.path}.{name}",
                "is not supported in the container of an MPI run",
                remedy="leave it out, and use kubectl exec",
            )
