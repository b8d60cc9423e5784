"""Channels in the messages of one WebSocket: the first byte of a message says which it belongs to.

In the base64 protocols it is the channel's digit, and base64 text follows. The fifth protocol's
channel 255 ends the channel that its payload names.

Source: k8s.io/streaming, httpstream/wsstream/conn.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass

from hpk.model.errors import ParseError
from kubelet.server.streaming.client_stream import ClientGoneError, Inbox, Unread
from kubelet.server.streaming.websocket import Piece, WebSocket

_CLOSE = 255
_DATA_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a subprotocol writes channels.

    :param has_close: a client can end one channel.
    """

    is_base64: bool = False
    has_close: bool = False
    status_as_text: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a message: bytes of a channel.

    :param last: the message ends with it.
    """

    channel: int
    data: bytes
    last: bool


class MessageReader:
    """Takes the channel's number off messages, and what is written as base64 back to bytes."""

    def __init__(self, *, is_base64: bool) -> None:
        self._is_base64 = is_base64
        self._channel: int | None = None
        self._rest = b""

    def feed(self, piece: Piece) -> Part | None:
        """The bytes in a piece; None where there are none yet, or the message is empty.

        :raises ParseError: it is no base64.
        """
        data = self._rest + piece.data
        self._rest = b""
        if self._channel is None:
            if not data:
                return None
            self._channel, data = data[0] - (ord("0") if self._is_base64 else 0), data[1:]
        if self._is_base64:
            whole = len(data) if piece.last else len(data) // 4 * 4
            data, self._rest = data[:whole], data[whole:]
            try:
                data = base64.b64decode(data, validate=True)
            except binascii.Error as error:
                raise ParseError(f"a message that is no base64: {error}") from error
        part = Part(self._channel, data, piece.last)
        if piece.last:
            self._channel = None
        return part


class Channel:
    """Fulfils ClientStream."""

    def __init__(self, channels: Channels, number: int) -> None:
        self.inbox = Inbox(channels.unread)
        self._channels = channels
        self._number = number
        self._ended = asyncio.Event()

    async def read(self) -> bytes:
        """See ClientStream."""
        return await self.inbox.read()

    async def write(self, data: bytes) -> None:
        """See ClientStream. An empty message is sent too."""
        view = memoryview(data)
        for at in range(0, max(1, len(data)), _DATA_BYTES):
            await self._channels.send(self._number, bytes(view[at : at + _DATA_BYTES]))

    async def write_end(self) -> None:
        """See ClientStream. There is no message for it, so the client's half ends with ours."""
        self._ended.set()

    async def reset(self) -> None:
        """See ClientStream."""
        self.end()

    def end(self) -> None:
        """Nothing comes or goes any more."""
        self.inbox.drop()
        self._ended.set()

    async def wait_reset(self) -> None:
        """See ClientStream. There is no message for it but the end of all channels."""
        await self._ended.wait()


class Channels:
    """Reads a WebSocket's messages in `serve`; channels are used by other tasks meanwhile.

    :param readable: the channels on which something may come; what comes on others is dropped.
    """

    def __init__(
        self, socket: WebSocket, protocol: Protocol, count: int, readable: Collection[int]
    ) -> None:
        self.unread = Unread()
        self._socket = socket
        self._protocol = protocol
        self._channels = tuple(Channel(self, number) for number in range(count))
        self._reader = MessageReader(is_base64=protocol.is_base64)
        self._ended = b""
        for number, channel in enumerate(self._channels):
            if number not in readable:
                channel.inbox.end()

    def __getitem__(self, number: int) -> Channel:
        return self._channels[number]

    async def serve(self) -> None:
        """Read messages until the client has gone; then all channels have ended.

        :raises ClientGoneError: always: with what ended it.
        """
        try:
            while True:
                if part := self._reader.feed(await self._socket.receive()):
                    self._take(part)
                    await self.unread.room()
        except ParseError as error:
            raise ClientGoneError(f"the client breaks the protocol: {error}") from error
        finally:
            for channel in self._channels:
                channel.end()

    async def send(self, number: int, data: bytes) -> None:
        """Send one message of a channel.

        :raises ClientGoneError: the client has gone.
        """
        if self._protocol.is_base64:
            await self._socket.send(chr(ord("0") + number) + base64.b64encode(data).decode())
        else:
            await self._socket.send(bytes((number,)) + data)

    def _take(self, part: Part) -> None:
        if part.channel == _CLOSE and self._protocol.has_close:
            self._ended += part.data
            if len(self._ended) > 1 or (part.last and not self._ended):
                raise ParseError("a message that ends no channel")
            if part.last:
                number, self._ended = self._ended[0], b""
                if number >= len(self._channels):
                    raise ParseError(f"a message that ends channel {number}")
                self._channels[number].inbox.end()
        elif 0 <= part.channel < len(self._channels):
            self._channels[part.channel].inbox.put(part.data)
