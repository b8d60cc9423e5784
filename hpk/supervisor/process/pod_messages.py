"""What the supervisor and the pod's init say to each other, over a socket between the two."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Optional, TypeVar

from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.model.frames import TerminalSize
from hpk.model.frozen import dataclass
from hpk.model.rights import DEFAULT_RIGHTS, Rights
from hpk.runtimes.base import Holder
from hpk.supervisor.process.places import Places

T = TypeVar("T")


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
    """Start a program. Descriptors: standard input, output and error; or, with a terminal, a socket
    that is sent the terminal's master (hpk.supervisor.process.terminal).

    :param container: id of an opened container to start it in; None: on the host.
    :param links: symbolic links to make in the container first, target → source.
    :param rights: what it may do there.
    :param emulates_root: see hpk.supervisor.process.seccomp.emulation.
    :param shares_processes: in podinit's PID namespace; else the first program in a container is
        process 1 of one that the others join.
    :param terminal: of this size, which it controls and has as all three.
    :param beside: a process, as podinit sees it, whose namespaces it joins: of the container that
        ranks of an MPI run share. Then one more descriptor, a socket, is sent what listens to the
        signals it sends to process 1 (hpk.supervisor.process.seccomp.listener).
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
    terminal: Optional[TerminalSize] = None
    beside: int = 0


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


_INLINE_BYTES = 2048
"""Bigger bodies are files: few of them would fill the socket's buffer."""
_INLINE, _AS_FILE = "inline", "file"
_PATIENCE_S = 5.0
_SCARCE = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.EAGAIN,
    errno.ETOOMANYREFS,
)

_TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (Open, Run, Signal, Close, Ready, Opened, Closed, Started, NotStarted, Exited)
}


@dataclass(frozen=True)
class Lost:
    """A message came without its descriptors: this process may have no more of them, for now.

    :param kind: the message's; ``id`` its own.
    """

    kind: str
    id: int


def send(sock: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send a message of any size: a small one as it is, else its JSON as an anonymous file.

    A moment without descriptors or memory passes, and podinit must outlive it.

    :raises OSError: the other is gone, or the moment has lasted for seconds.
    """
    body = codec.dumps(message).encode()
    head = (type(message).__name__, str(getattr(message, "id", 0)), str(len(fds)))
    if len(body) <= _INLINE_BYTES:
        text = "\n".join((*head, _INLINE, "")).encode() + body
        _patiently(lambda: socket.send_fds(sock, [text], fds))
        return
    text = "\n".join((*head, _AS_FILE, "")).encode()
    memory = _patiently(lambda: _in_memory(body))
    try:
        _patiently(lambda: socket.send_fds(sock, [text], (memory, *fds)))
    finally:
        os.close(memory)


def _in_memory(body: bytes) -> int:
    memory = os.memfd_create("hpk", os.MFD_CLOEXEC)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(memory, rest) :]
    except BaseException:
        os.close(memory)
        raise
    return memory


def _patiently(work: Callable[[], T]) -> T:
    until_mono_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return work()
        except OSError as error:
            if error.errno not in _SCARCE or time.monotonic() > until_mono_s:
                raise
            time.sleep(0.01)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, _INLINE_BYTES + 1024, 8)
    for fd in fds:
        os.set_inheritable(fd, False)  # recv_fds takes no heed of its flags
    return data, fds


def receive(sock: socket.socket) -> Optional[tuple[Any, tuple[int, ...]]]:
    """The next message and its descriptors; a Lost without; None at the end."""
    try:
        data, fds = _receive(sock)
    except ConnectionResetError:
        # The other died with unread messages. That is told once, before what it said last.
        data, fds = _receive(sock)
    if not data:
        return None
    kind, number, count, form, body = data.split(b"\n", 4)
    cls = _TYPES.get(kind.decode())
    if cls is None:
        raise ParseError(f"podinit: unknown message {kind!r}")
    if len(fds) < int(count) + (form == _AS_FILE.encode()):
        for fd in fds:
            os.close(fd)
        if cls is NotStarted:
            return NotStarted(int(number), "why could not be read: no descriptors"), ()
        return Lost(kind.decode(), int(number)), ()
    if form == _AS_FILE.encode():
        with os.fdopen(fds.pop(0), "rb") as file:
            file.seek(0)
            body = file.read()
    return codec.loads(cls, body), tuple(fds)
