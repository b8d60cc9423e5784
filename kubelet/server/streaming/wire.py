"""The bytes of one connection that has left HTTP."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Protocol

from kubelet.server.front_door import Upgrade
from kubelet.server.streaming.client_stream import ClientGoneError

log = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024
_UNSENT_BYTES = 64 * 1024
"""What may wait to be sent before a sender waits; the kernel and TLS hold as much again."""
IDLE_TIMEOUT_S = 4 * 3600.0  # upstream's streaming-connection-idle-timeout


class Wire(Protocol):
    """What a codec reads its frames from and writes them to."""

    async def read(self) -> bytes:
        """Some bytes; b"" when the client sends no more.

        :raises ClientGoneError: the connection is broken.
        """

    def write(self, data: bytes) -> None:
        """Send bytes, after those of earlier calls. To be followed by drain."""

    async def drain(self) -> None:
        """Until the client has taken enough of what was written.

        :raises ClientGoneError: the connection is broken.
        """

    def abort(self) -> None:
        """End the connection at once; whoever waits for it is told."""


class TlsWire:
    """The connection that an Upgrade hands over."""

    def __init__(self, upgrade: Upgrade, rest: bytes) -> None:
        """
        :param rest: what the client had sent after the head of its request.
        """
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=_READ_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        transport = upgrade.transport
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        transport.resume_reading()  # before the reader has a reason to pause it
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        if rest:
            self._reader.feed_data(rest)

    async def read(self) -> bytes:
        """See Wire."""
        try:
            return await self._reader.read(_READ_BYTES)
        except (OSError, ssl.SSLError) as error:
            raise ClientGoneError(f"the client's connection is lost: {error}") from error

    def write(self, data: bytes) -> None:
        """See Wire."""
        self._writer.write(data)

    async def drain(self) -> None:
        """See Wire."""
        try:
            await self._writer.drain()
        except (OSError, ssl.SSLError) as error:
            raise ClientGoneError(f"the client's connection is lost: {error}") from error

    def abort(self) -> None:
        """See Wire."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Send what is still to be sent, then end the connection."""
        # A second close of a TLS connection breaks what asyncio keeps of it.
        if not self._writer.is_closing():
            self._writer.close()


class IdleWatch:
    """Ends a connection on which nothing has come or gone for long."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._last_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Watch from now on."""
        self.note_life()
        self._look()

    def note_life(self) -> None:
        """Something has come or gone."""
        self._last_at = asyncio.get_running_loop().time()

    def end(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._last_at + IDLE_TIMEOUT_S - loop.time()
        if left_s > 0:
            self._timer = loop.call_later(left_s, self._look)
        else:
            log.info("end a connection that has been idle")
            self._wire.abort()
