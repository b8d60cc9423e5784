"""One TLS connection to the kubelet: non-blocking, of one thread, as OpenSSL allows no second."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from typing import Any, Protocol

from hpk.model import codec, frames
from hpk.model.errors import ParseError

_MAX_UNSENT_BYTES = 1024 * 1024


class Sides(Protocol):
    """What a connection asks of the channel it belongs to."""

    wake_fd: int

    @property
    def is_closing(self) -> bool:
        """Whether the connection is to end once all is sent."""

    def take_outgoing(self) -> list[Any]:
        """Frames that wait to be sent."""

    def start_read(self) -> bool:
        """Have one log read answered that can be answered now; whether there was one."""

    def handle(self, frame: Any) -> None:
        """One frame of the kubelet's."""


class Connection:
    """See the module's docstring."""

    def __init__(self, channel: Sides, sock: Any, ssl: Any) -> None:
        self._channel = channel
        self._sock = sock
        self._ssl = ssl
        self._received = bytearray()
        self._unsent = bytearray()

    def serve(self, hello: bytes) -> None:
        """Until the other side ends or we close."""
        self._unsent += hello
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel.wake_fd, selectors.EVENT_READ)
            selector.register(self._sock, selectors.EVENT_READ)
            while True:
                self._gather()
                self._flush()
                if self._channel.is_closing and not self._unsent:
                    return
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
                selector.modify(self._sock, events)
                if not self._sock.pending():
                    selector.select(5.0)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._channel.wake_fd, 4096)
                if not self._receive():
                    return

    def _gather(self) -> None:
        for frame in self._channel.take_outgoing():
            self._unsent += codec.frame_bytes(frame)
        while len(self._unsent) < _MAX_UNSENT_BYTES and self._channel.start_read():
            pass

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(memoryview(self._unsent)[: 64 * 1024])
                del self._unsent[:sent]
        except (self._ssl.SSLWantWriteError, self._ssl.SSLWantReadError):
            pass

    def _receive(self) -> bool:
        try:
            while True:
                data = self._sock.recv(64 * 1024)
                if not data:
                    return False
                self._received += data
                if not self._sock.pending():
                    break
        except (self._ssl.SSLWantReadError, self._ssl.SSLWantWriteError):
            pass
        while len(self._received) >= 4:
            size = int.from_bytes(self._received[:4], "big")
            if size > frames.MAX_FRAME_BYTES:
                raise ParseError(f"channel: a frame of {size} bytes")
            if len(self._received) < 4 + size:
                break
            payload = bytes(self._received[4 : 4 + size])
            del self._received[: 4 + size]
            frame = codec.parse_frame(payload)
            if frame is not None:
                self._channel.handle(frame)
        return True


def keep_alive(sock: socket.socket) -> None:
    """Notice within half a minute that the other host is gone."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 15),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 4),
        (socket.TCP_USER_TIMEOUT, 30_000),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
