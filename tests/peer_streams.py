"""The kubelet's end of streams, for tests of the supervisor as a process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hpk.model import frames
from hpk.model.stream_frames import (
    FIRST_CREDIT_BYTES,
    MAX_DATA_BYTES,
    STDERR,
    STDIN,
    STDOUT,
    StreamCredit,
    StreamData,
    StreamEnd,
    StreamFrame,
)

if TYPE_CHECKING:
    from tests.supervisor_peer import Peer


class PeerStream:
    """One stream; what it has said is read at once, unless it ``reads`` no more."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self.number = number
        self.said = {STDOUT: bytearray(), STDERR: bytearray()}
        self.ended: set[int] = set()
        self.is_open = False
        self.closed: frames.StreamClosed | None = None
        self.reads = True
        self._written = 0
        self._limit = FIRST_CREDIT_BYTES

    def take(self, frame: StreamFrame) -> None:
        """With the peer's lock held."""
        if isinstance(frame, StreamCredit):
            self._limit = max(self._limit, frame.position)
        elif isinstance(frame, StreamEnd):
            self.ended.add(frame.channel)
        else:
            said = self.said[frame.channel]
            assert frame.position == len(said)
            said += frame.data
            if self.reads:
                self.allow(frame.channel)

    def allow(self, channel: int = STDOUT) -> None:
        """Read what has come."""
        position = len(self.said[channel]) + FIRST_CREDIT_BYTES
        self._peer.send_stream(StreamCredit(self.number, channel, position))

    def write(self, data: bytes) -> None:
        """To its standard input."""
        self.wait_open()
        rest = memoryview(data)
        while rest:
            self._peer.wait(lambda: self._written < self._limit or self.closed is not None)
            if self.closed is not None:
                return
            piece = bytes(rest[: min(MAX_DATA_BYTES, self._limit - self._written)])
            self._peer.send_stream(StreamData(self.number, STDIN, self._written, piece))
            self._written += len(piece)
            rest = rest[len(piece) :]

    def wait_open(self) -> None:
        self.wait(lambda: self.is_open or self.closed is not None)

    def write_end(self) -> None:
        self._peer.send_stream(StreamEnd(self.number, STDIN, self._written))

    def resize(self, width: int, height: int) -> None:
        size = frames.TerminalSize(width, height)
        self._peer.send(frames.StreamResize(self.number, size))

    def close(self) -> None:
        """The client has gone."""
        self._peer.send(frames.StreamClose(self.number))

    def wait_said(self, text: bytes, channel: int = STDOUT) -> None:
        self.wait(lambda: text in self.said[channel])

    def wait(self, condition: Callable[[], bool]) -> None:
        try:
            self._peer.wait(condition)
        except TimeoutError as error:
            raise TimeoutError(f"said: {self.said}, closed: {self.closed}") from error

    def wait_closed(self) -> frames.StreamClosed:
        self.wait(lambda: self.closed is not None)
        assert self.closed is not None
        return self.closed

    def run(self) -> tuple[bytes, bytes, int | None]:
        """Its whole output, and how it ended."""
        closed = self.wait_closed()
        assert closed.error is frames.StreamError.NONE, closed
        return bytes(self.said[STDOUT]), bytes(self.said[STDERR]), closed.exit_code


class PeerStreams:
    """All of one connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._all: dict[int, PeerStream] = {}

    def open(self, cls: type, **fields: Any) -> PeerStream:
        stream = PeerStream(self._peer, len(self._all) + 1)
        self._all[stream.number] = stream
        self._peer.send(cls(id=stream.number, **fields))
        return stream

    def take(self, frame: StreamFrame) -> None:
        self._all[frame.stream].take(frame)

    def opened(self, frame: frames.StreamOpened) -> None:
        self._all[frame.id].is_open = True

    def closed(self, frame: frames.StreamClosed) -> None:
        self._all[frame.id].closed = frame

    def exec(self, *command: str, container: str = "main", **changes: Any) -> PeerStream:
        asked = {"stdin": False, "stdout": True, "stderr": True, "tty": False, **changes}
        return self.open(frames.ExecOpen, container=container, command=command, **asked)

    def attach(self, container: str = "main", **changes: Any) -> PeerStream:
        asked = {"stdin": False, "stdout": True, "stderr": True, **changes}
        return self.open(frames.AttachOpen, container=container, **asked)
