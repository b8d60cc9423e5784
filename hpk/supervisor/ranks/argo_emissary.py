"""Argo Workflows' emissary before the command of an MPI run.

Argo's controller rewrites a step's command to ``/var/run/argo/argoexec emissary … -- COMMAND``:
the emissary starts COMMAND, keeps its exit code and saves the step's outputs, each in one file of
the Pod. Those are the whole run's, so it stands before rank 0 alone; the other ranks run COMMAND.

The emissary passes signals on by kill(-1), which is right for the only program of a PID namespace
(Go's Process.Release, which it has called by then, leaves -1 as the pid). A rank is in the host's,
where that would end the user's other jobs on the node: it is refused, and who gets a signal for
the emissary signals what it has started as well.

Source: github.com/argoproj/argo-workflows, workflow/controller/workflowpod.go (execCmd).
"""

from __future__ import annotations

import contextlib
import os

from hpk.durable import read_file
from hpk.supervisor.base import linux
from hpk.supervisor.process.seccomp.emulation import kill_of_one

_EMISSARY = ("/var/run/argo/argoexec", "emissary")
_END = "--"


def has_emissary(argv: tuple[str, ...]) -> bool:
    """Whether Argo's prefix stands before the command."""
    return argv[: len(_EMISSARY)] == _EMISSARY and _END in argv


def without_emissary(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command behind the emissary; any other command as it is."""
    if not has_emissary(argv):
        return argv
    return argv[argv.index(_END) + 1 :] or argv


def refuse_to_signal_everybody() -> None:
    """Of this process and all it starts; in the container, before it gives up its rights."""
    with contextlib.suppress(KeyError):
        linux.filter_system_calls(kill_of_one(os.uname().machine))


def signal_tree(pid: int, number: int) -> None:
    """Signal a process and everything below it, the deepest last."""
    below = _children(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    for child in below:
        signal_tree(child, number)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        found = []
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += read_file(f"/proc/{pid}/task/{thread}/children").split()
        return [int(child) for child in found]
    return []
