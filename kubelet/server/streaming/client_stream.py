"""One stream of a client, whatever protocol carries it, and what of it nobody has read yet."""

from __future__ import annotations

import asyncio
from typing import Protocol

from hpk.model.errors import HpkError

MAX_UNREAD_BYTES = 512 * 1024
"""Of all streams of one connection. A connection that has more waits in TCP."""
MAX_READ_BYTES = 64 * 1024


class ClientGoneError(HpkError):
    """The client has hung up, or broken the protocol."""


class ClientStream(Protocol):
    """Bytes both ways. Reading and writing are each done by one task at a time."""

    async def read(self) -> bytes:
        """Some bytes; b"" at the end, again and again."""

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read. Of a stream that the client has reset
        they are dropped.

        :raises ClientGoneError: with the whole connection.
        """

    async def write_end(self) -> None:
        """Nothing follows.

        :raises ClientGoneError: as write does.
        """

    async def reset(self) -> None:
        """Both sides are done with it."""

    async def wait_reset(self) -> None:
        """Until the client has reset it, or gone."""


class Unread:
    """How much of one connection waits to be read by whoever has its streams."""

    def __init__(self, limit_bytes: int = MAX_UNREAD_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def add(self, size: int) -> None:
        """So many more (or, negative, fewer) bytes wait."""
        self._bytes += size
        if self._bytes < self._limit_bytes:
            self._room.set()
        else:
            self._room.clear()

    async def room(self) -> None:
        """Until more may be read from the client."""
        await self._room.wait()


class Inbox:
    """What a client has sent on one stream and nobody has read yet."""

    def __init__(self, unread: Unread) -> None:
        self._unread = unread
        # Not a queue of pieces: one of a single byte would cost forty.
        self._waiting = bytearray()
        self._changed = asyncio.Event()
        self._ended = False

    @property
    def is_read_out(self) -> bool:
        """Whether nothing more comes, and nothing waits."""
        return self._ended and not self._waiting

    def put(self, data: bytes) -> None:
        """More has come; after the end it is dropped."""
        if data and not self._ended:
            self._waiting += data
            self._unread.add(len(data))
            self._changed.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._changed.set()

    def drop(self) -> None:
        """Nobody reads any more."""
        self.end()
        self._unread.add(-len(self._waiting))
        self._waiting.clear()

    async def read(self) -> bytes:
        """Some bytes; b"" at the end, again and again."""
        while not self._waiting:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._waiting[:MAX_READ_BYTES])
        del self._waiting[:MAX_READ_BYTES]
        self._unread.add(-len(data))
        return data
