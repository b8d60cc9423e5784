"""What the supervisor and the pod's init say to each other, over a socket between the two."""

from __future__ import annotations

import os
import socket
from typing import Any, Optional

from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.model.frozen import dataclass
from hpk.model.rights import DEFAULT_RIGHTS, Rights
from hpk.runtimes.base import Holder
from hpk.supervisor.process.places import Places


@dataclass(frozen=True)
class Bind:
    """One path in the place of another."""

    source: str
    target: str


@dataclass(frozen=True)
class Open:
    """Start a runtime whose payload is the pause program. Descriptor: its standard error.

    :param uid: who its programs are, in a user namespace below the container's; gid alike.
    :param places: what it sees of the node; None: all that we see (tests).
    :param holder: set where the runtime does not stay (hpk.supervisor.process.hold).
    """

    id: int
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    uid: int
    gid: int
    holder: Optional[Holder] = None
    places: Optional[Places] = None


@dataclass(frozen=True)
class Run:
    """Start a program. Descriptors: standard input, output and error.

    :param container: id of an opened container to start it in; None: on the host.
    :param links: symbolic links to make in the container first, target → source.
    :param rights: what it may do there.
    :param emulates_root: see hpk.supervisor.process.seccomp.emulation.
    :param shares_processes: in podinit's PID namespace; else the first program in a container is
        process 1 of one that the others join.
    """

    id: int
    container: Optional[int]
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    links: tuple[Bind, ...] = ()
    rights: Rights = DEFAULT_RIGHTS
    emulates_root: bool = False
    shares_processes: bool = False


@dataclass(frozen=True)
class Signal:
    """Signal the process of a Run.

    :param group: and what it has started.
    :param as_process_1: as a process of its container signals process 1.
    """

    id: int
    number: int
    group: bool = False
    as_process_1: bool = False


@dataclass(frozen=True)
class Close:
    """Kill what is left in a container and let its runtime end."""

    id: int


@dataclass(frozen=True)
class Ready:
    """podinit runs; or, with a message, cannot."""

    message: str = ""


@dataclass(frozen=True)
class Opened:
    """The container is there."""

    id: int


@dataclass(frozen=True)
class Closed:
    """The runtime of the container has ended; without a Close before: it failed."""

    id: int
    status: int


@dataclass(frozen=True)
class Started:
    """The program runs."""

    id: int


@dataclass(frozen=True)
class NotStarted:
    """The program cannot be started."""

    id: int
    message: str


@dataclass(frozen=True)
class Exited:
    """The program has ended; ``status`` as waitpid gives it."""

    id: int
    status: int


_TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (Open, Run, Signal, Close, Ready, Opened, Closed, Started, NotStarted, Exited)
}


def send(sock: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send a message of any size: its JSON travels as an anonymous file."""
    memory = os.memfd_create("hpk", os.MFD_CLOEXEC)
    try:
        body = codec.dumps({}) if message is None else codec.dumps(message)
        with os.fdopen(os.dup(memory), "wb") as file:
            file.write(f"{type(message).__name__}\n{body}".encode())
        socket.send_fds(sock, [b"m"], [memory, *fds])
    finally:
        os.close(memory)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, 16, 8)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds takes no heed of its flags
    return data, fds


def receive(sock: socket.socket) -> Optional[tuple[Any, tuple[int, ...]]]:
    """The next message and its descriptors; None at the end."""
    try:
        data, fds = _receive(sock)
    except ConnectionResetError:
        # The other died with unread messages. That is told once, before what it said last.
        data, fds = _receive(sock)
    if not data or not fds:
        return None
    with os.fdopen(fds[0], "rb") as file:
        file.seek(0)
        kind, _, body = file.read().partition(b"\n")
    cls = _TYPES.get(kind.decode())
    if cls is None:
        raise ParseError(f"podinit: unknown message {kind!r}")
    return codec.loads(cls, body), tuple(fds[1:])
