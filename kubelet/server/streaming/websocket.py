"""One WebSocket connection, the server's end; wsproto knows the frames.

Messages are passed on in the pieces they arrive in: one may be of any size, and costs no more than
what was read of it.

Source: RFC 6455; k8s.io/streaming, httpstream/wsstream/conn.go.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import ProtocolError

from kubelet.server.streaming.client_stream import ClientGoneError
from kubelet.server.streaming.wire import IdleWatch, Wire

CLOSE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a message.

    :param data: as sent; of a text its UTF-8.
    :param last: the message ends with it.
    """

    data: bytes
    last: bool


class WebSocket:
    """Received from by one task, sent to by any."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._connection = Connection(ConnectionType.SERVER)
        self._pieces: deque[Piece] = deque()
        self._idle = IdleWatch(wire)
        self._idle.begin()
        self._is_over = False

    async def receive(self) -> Piece:
        """The next piece of a message.

        :raises ClientGoneError: there will be none.
        """
        try:
            while not self._pieces:
                await self._take(await self._wire.read())
        except ClientGoneError:
            self.end()
            raise
        return self._pieces.popleft()

    async def send(self, data: bytes | str) -> None:
        """Send one message; waits while the client does not read.

        :raises ClientGoneError: it has gone.
        """
        if self._is_over:
            raise ClientGoneError("the client has gone")
        event = TextMessage(data) if isinstance(data, str) else BytesMessage(data)
        self._wire.write(self._connection.send(event))
        await self._wire.drain()
        self._idle.note_life()

    async def close(self) -> None:
        """Say that all is over, and wait for the client to hang up.

        :raises ClientGoneError: it has gone already.
        """
        if self._is_over:
            return
        self._is_over = True
        self._wire.write(self._connection.send(CloseConnection(CloseReason.NORMAL_CLOSURE)))
        await self._wire.drain()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                # What is left unread loses what is still under way to the client.
                while await self._wire.read():
                    pass
        except TimeoutError:
            self._wire.abort()
        self.end()

    def end(self) -> None:
        """Nothing is sent or received any more."""
        self._is_over = True
        self._idle.end()

    async def _take(self, data: bytes) -> None:
        if not data:
            raise ClientGoneError("the client has hung up")
        self._idle.note_life()
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    self._pieces.append(Piece(bytes(event.data), event.message_finished))
                elif isinstance(event, TextMessage):
                    self._pieces.append(Piece(event.data.encode(), event.message_finished))
                elif isinstance(event, Ping) and not self._is_over:
                    self._wire.write(self._connection.send(Pong(event.payload)))
                    await self._wire.drain()
                elif isinstance(event, CloseConnection):
                    await self._answer_close(event)
        except ProtocolError as error:
            raise ClientGoneError(f"the client breaks the protocol: {error}") from error

    async def _answer_close(self, event: CloseConnection) -> None:
        if not self._is_over:
            self._is_over = True  # nothing is sent after that, while it waits to be sent itself
            self._wire.write(self._connection.send(event.response()))
            await self._wire.drain()
        raise ClientGoneError(f"the client has said goodbye ({event.code})")
