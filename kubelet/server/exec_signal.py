"""An exec that sends a signal to process 1 of a container, without a program in the container.

Argo's controller stops a step by running ``argoexec kill SIGNAL 1`` in its containers, and people
run ``kill -TERM 1``: process 1 of a container is its main process. The supervisor signals the main
process itself, for there may be no shell in the image; of an MPI run every rank, which are nobody's
process 1.

Source: argo-workflows, workflow/signal.
"""

from __future__ import annotations

import re
import signal

from hpk.model.errors import HpkError
from hpk.model.frames import StreamClosed, TerminalSize
from kubelet.server.backend import KubeletBackend
from kubelet.server.streams import RemoteStream, StreamRefusedError

_KILL = re.compile(r"kill +-(?:s +)?(\w+) +1")
_ARGO_KILL = ("/var/run/argo/argoexec", "kill")
_ARGO_WAIT = "wait"
_ARGO_START_S = 20
"""Argo's controller sends the container that waits for a step's outputs SIGTERM as soon as the step
has ended. It dies of one that comes before its handlers are there (seconds on a busy node), and the
step's outputs are lost; where the command is really run, its own start takes as long. A container
that has what it waits for has ended by then."""


def signal_of(command: tuple[str, ...]) -> int | None:
    """The signal a command sends to process 1 and does nothing else; None for other commands."""
    if command[:2] == _ARGO_KILL and len(command) == 4 and command[3] == "1":
        return _number(command[2])
    if len(command) == 3 and command[0] in ("sh", "/bin/sh") and command[1] == "-c":
        found = _KILL.fullmatch(command[2].strip())
    else:
        found = _KILL.fullmatch(" ".join((command[0].removeprefix("/bin/"), *command[1:])))
    return _number(found[1]) if found else None


def _number(text: str) -> int | None:
    if text.isascii() and text.isdigit():
        return int(text) if 0 < int(text) < signal.NSIG else None
    known = {item.name.removeprefix("SIG"): int(item) for item in signal.Signals}
    return known.get(text.upper().removeprefix("SIG"))


class _Signalled:
    """Fulfils RemoteStream: a program that ended well and said nothing."""

    async def read(self, channel: int) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        pass

    async def write_end(self) -> None:
        pass

    async def resize(self, size: TerminalSize) -> None:
        pass

    async def closed(self) -> StreamClosed:
        return StreamClosed(id=0, exit_code=0)

    def close(self) -> None:
        pass


async def open_signal(
    backend: KubeletBackend, uid: str, container: str, command: tuple[str, ...]
) -> RemoteStream | None:
    """The exec of a command that is a signal, done; None for other commands.

    :raises StreamRefusedError: it cannot be sent.
    """
    number = signal_of(command)
    if number is None:
        return None
    is_argos = command[:2] == _ARGO_KILL and container == _ARGO_WAIT
    try:
        await backend.signal_container(
            uid, container, number, not_before_s=_ARGO_START_S if is_argos else 0
        )
    except (HpkError, OSError) as error:
        raise StreamRefusedError(str(error)) from error
    return _Signalled()
