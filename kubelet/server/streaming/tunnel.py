"""SPDY in the binary messages of a WebSocket, as port-forward uses it.

Source: k8s.io/apiserver, pkg/util/proxy/streamtunnel.go; client-go, tools/portforward.
"""

from __future__ import annotations

import asyncio

from kubelet.server.streaming.port_forward import PortForward, Target
from kubelet.server.streaming.websocket import WebSocket
from kubelet.server.streaming.wire import Wire

PROTOCOL = "SPDY/3.1+portforward.k8s.io"


class TunnelWire:
    """Fulfils Wire: a connection within a connection's messages."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._socket = WebSocket(wire)
        self._unsent = bytearray()
        self._sending = asyncio.Lock()

    async def read(self) -> bytes:
        """See Wire."""
        while True:
            if data := (await self._socket.receive()).data:
                return data

    def write(self, data: bytes) -> None:
        """See Wire."""
        self._unsent += data

    async def drain(self) -> None:
        """See Wire."""
        async with self._sending:
            if self._unsent:
                data, self._unsent = bytes(self._unsent), bytearray()
                await self._socket.send(data)

    def abort(self) -> None:
        """See Wire."""
        self._wire.abort()

    def end(self) -> None:
        """Nothing is read or written any more."""
        self._socket.end()


async def serve_tunnel(wire: Wire, target: Target) -> None:
    """One connection, to its end.

    :raises ClientGoneError: always, with what ended it.
    """
    tunnel = TunnelWire(wire)
    try:
        await PortForward(tunnel, target).serve()
    finally:
        tunnel.end()
