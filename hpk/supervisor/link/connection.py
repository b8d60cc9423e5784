"""One TLS connection to the kubelet: non-blocking, of one thread, as OpenSSL allows no second."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any, Protocol

from hpk.model import codec, frames
from hpk.model.errors import ParseError
from hpk.model.stream_frames import is_stream_frame, parse_stream_frame
from hpk.supervisor.link.streams import Streams

_BLOCK_BYTES = 64 * 1024
_RECORD_BYTES = 16 * 1024
"""The most that TLS gives at once."""
_TURN_BYTES = 256 * 1024
"""After so many sent or received, it is looked for what else there is."""
_UNSENT_BYTES = 128 * 1024
"""What the kernel may keep of ours: what comes first has to wait behind that."""

_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; Python's own name for it is younger than 3.9


class Sides(Protocol):
    """What a connection asks of the channel it belongs to."""

    wake_fd: int
    streams: Streams

    @property
    def is_closing(self) -> bool:
        """Whether the connection is to end once all is sent."""

    def take_control(self) -> list[bytes]:
        """Frames that wait to be sent, before any bytes of logs and streams."""

    def take_answer(self) -> bytes:
        """A frame with bytes of a log; b"" where there is none."""

    def handle(self, frame: Any) -> None:
        """One frame of the kubelet's."""


class Connection:
    """See the module's docstring."""

    def __init__(self, channel: Sides, sock: Any, ssl: Any) -> None:
        self._channel = channel
        self._sock = sock
        self._ssl = ssl
        self._received = bytearray()
        self._sending = memoryview(b"")
        self._is_blocked = False
        self._is_logs_turn = False

    def serve(self, hello: bytes) -> None:
        """Until the other side ends or we close."""
        self._sending = memoryview(hello)
        streams = self._channel.streams
        with select.epoll() as poller:
            poller.register(self._channel.wake_fd, select.EPOLLIN)
            poller.register(self._sock, select.EPOLLIN)
            streams.begin(poller)
            try:
                while self._turn(poller):
                    pass
            finally:
                streams.end()

    def _turn(self, poller: select.epoll) -> bool:
        was_blocked = self._is_blocked
        has_more = self._send()
        if self._channel.is_closing and not self._sending and not has_more:
            return False
        if self._is_blocked != was_blocked:
            out = select.EPOLLOUT if self._is_blocked else 0
            poller.modify(self._sock, select.EPOLLIN | out)
        is_waiting = not has_more and not self._sock.pending()
        for fd, events in poller.poll(5.0 if is_waiting else 0):
            if fd == self._channel.wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif fd != self._sock.fileno():
                self._channel.streams.ready(fd, events)
        return self._receive()

    def _send(self) -> bool:
        """Send what can be sent; whether there may be more of it."""
        left = _TURN_BYTES
        self._is_blocked = False
        try:
            while left > 0:
                if not self._sending:
                    self._sending = memoryview(self._next_block())
                    if not self._sending:
                        return False
                sent = self._sock.send(self._sending[:_BLOCK_BYTES])
                self._sending = self._sending[sent:]
                left -= sent
        except (self._ssl.SSLWantWriteError, self._ssl.SSLWantReadError):
            self._is_blocked = True
            return False
        return True

    def _next_block(self) -> bytes:
        """What comes next: whatever does not wait behind data, else data, of logs and of streams
        by turns."""
        control = self._channel.take_control()
        if control:
            return b"".join(control)
        self._is_logs_turn = not self._is_logs_turn
        if self._is_logs_turn:
            return self._channel.take_answer() or self._channel.streams.next_data()
        return self._channel.streams.next_data() or self._channel.take_answer()

    def _receive(self) -> bool:
        """Take in what has come; whether more may."""
        is_open = True
        try:
            for _ in range(_TURN_BYTES // _RECORD_BYTES):
                data = self._sock.recv(_RECORD_BYTES)
                if not data:
                    is_open = False
                    break
                self._received += data
        except (self._ssl.SSLWantReadError, self._ssl.SSLWantWriteError):
            pass
        while len(self._received) >= 4:
            size = int.from_bytes(self._received[:4], "big")
            if size > frames.MAX_FRAME_BYTES:
                raise ParseError(f"channel: a frame of {size} bytes")
            if len(self._received) < 4 + size:
                break
            with memoryview(self._received) as received:
                payload = bytes(received[4 : 4 + size])
            del self._received[: 4 + size]
            self._take(payload)
        return is_open

    def _take(self, payload: bytes) -> None:
        if is_stream_frame(payload):
            self._channel.streams.take(parse_stream_frame(payload))
            return
        frame = codec.parse_frame(payload)
        if frame is not None:
            self._channel.handle(frame)


def keep_alive(sock: socket.socket) -> None:
    """Notice within half a minute that the other host is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 15),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, 30_000),
        (_TCP_NOTSENT_LOWAT, _UNSENT_BYTES),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
