"""What exec, attach and port-forward are to the kubelet API, whatever protocol the client speaks.

The codecs (SPDY, WebSocket) move bytes between a client and a RemoteStream; whoever implements
StreamBackend knows the pod's supervisor. Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hpk.model.frames import StreamClosed, TerminalSize
from kubelet.link.stream_errors import StreamLostError, StreamRefusedError

__all__ = ["RemoteStream", "StreamBackend", "StreamLostError", "StreamRefusedError", "Streams"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Which of them a client asks for, of exec and attach."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class RemoteStream(Protocol):
    """One program's or connection's bytes. Each channel may be used by a task of its own."""

    async def read(self, channel: int) -> bytes:
        """Some bytes of STDOUT or STDERR; b"" at its end, again and again.

        What is not read is not sent: at most the channel's window waits here.

        :raises StreamLostError: it will have no proper end.
        """

    async def write(self, data: bytes) -> None:
        """Bytes for STDIN; waits until there is room for them at the other end.

        :raises StreamLostError: nobody will read them.
        """

    async def write_end(self) -> None:
        """STDIN has ended."""

    async def resize(self, size: TerminalSize) -> None:
        """The client's terminal has another size."""

    async def closed(self) -> StreamClosed:
        """The supervisor's last word, once it has said all else.

        :raises StreamLostError: there will be none.
        """

    def close(self) -> None:
        """The client has gone, or all is over: let go of it. Any number of times."""


class StreamBackend(Protocol):
    """The kubelet, as the streaming endpoints see it.

    Each returns when the program runs or the connection is made.

    :raises StreamRefusedError: see there.
    :raises StreamLostError: the supervisor hung up meanwhile.
    """

    async def open_exec(
        self,
        uid: str,
        container: str,
        command: tuple[str, ...],
        streams: Streams,
        size: TerminalSize | None,
    ) -> RemoteStream:
        """Run a program in a container of the Pod with this UID."""

    async def open_attach(
        self, uid: str, container: str, streams: Streams, size: TerminalSize | None
    ) -> RemoteStream:
        """Join the program that a container of the Pod runs."""

    async def open_dial(self, uid: str, port: int) -> RemoteStream:
        """Connect to a port of the Pod: STDIN to it, STDOUT from it."""
