"""The front door: what happens to a connection between its TLS handshake and its first request.

uvicorn shows an application neither the client's certificate nor a connection that is to become
something else than HTTP. So each connection begins here: the head of its first request is read,
within limits; a request to upgrade goes to `on_upgrade`, every other connection, with all bytes
read so far, to uvicorn's own protocol, which keeps it. Nobody gets here without a certificate that
TLS has verified.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubelet.server.peer import Peer, peer_of

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 10.0
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CONNECTION = re.compile(rb"^connection[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A connection whose client wants to leave HTTP.

    :param transport: does not read; whoever gives it another protocol resumes it.
    :param received: all bytes read so far: the request's head and whatever followed it.
    """

    transport: asyncio.Transport
    peer: Peer
    received: bytes


def wants_upgrade(head: bytes) -> bool:
    """Whether a request's head asks for another protocol (``Connection: Upgrade``)."""
    return any(
        token.strip().lower() == b"upgrade"
        for found in _CONNECTION.finditer(head)
        for token in found[1].split(b",")
    )


def answer(
    transport: asyncio.Transport,
    status: str,
    message: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request in plain text and end the connection."""
    body = message.encode()
    lines = (
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    )
    transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    transport.close()


class FrontDoor(asyncio.Protocol):
    """Reads one connection's first head, then hands the connection over."""

    def __init__(
        self,
        *,
        open_connections: set[asyncio.Transport],
        make_http: Callable[[Peer], asyncio.Protocol],
        on_upgrade: Callable[[Upgrade], None],
    ) -> None:
        self._open_connections = open_connections
        self._make_http = make_http
        self._on_upgrade = on_upgrade
        self._received = b""
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done and the client's certificate verified."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"not a stream: {transport!r}")
        self._transport = transport
        self._open_connections.add(transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None:
            # A reader of a silent log whose machine has gone is noticed by nothing else.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        ssl_object = transport.get_extra_info("ssl_object")
        self._peer = peer_of(ssl_object) if isinstance(ssl_object, ssl.SSLObject) else None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HEAD_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """More of the head; what comes after the connection was handed over is forgotten."""
        if self._transport is None or self._transport.is_closing():
            return
        self._received += data
        end = _HEAD_END.search(self._received)
        if end is None:
            if len(self._received) > MAX_HEAD_BYTES:
                self._leave()
                answer(self._transport, "431 Request Header Fields Too Large", "head too large")
            return
        self._leave()
        if self._peer is None:
            answer(self._transport, "401 Unauthorized", "Unauthorized")
            return
        transport, self._transport = self._transport, None
        if wants_upgrade(self._received[: end.end()]):
            # Nothing more until it is known who reads it: the client waits in TCP meanwhile.
            transport.pause_reading()
            self._on_upgrade(Upgrade(transport=transport, peer=self._peer, received=self._received))
            return
        http = self._make_http(self._peer)
        transport.set_protocol(http)
        http.connection_made(transport)
        http.data_received(self._received)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left before it asked for anything."""
        self._leave()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._open_connections.discard(self._transport)
