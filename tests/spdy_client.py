"""A SPDY/3.1 client for the kubelet API, written apart from the code that it tries."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Callable

from kubelet.server.streaming.spdy_headers import DICTIONARY
from tests.kubelet_api import Running

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = (
    *range(1, 5),
    *range(6, 10),
)


def control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def data(stream: int, payload: bytes, *, fin: bool = False) -> bytes:
    return struct.pack(">II", stream, fin << 24 | len(payload)) + payload


def pairs(headers: dict[str, str]) -> bytes:
    def text(value: str) -> bytes:
        encoded = value.encode()
        return struct.pack(">I", len(encoded)) + encoded

    items = b"".join(text(name) + text(value) for name, value in headers.items())
    return struct.pack(">I", len(headers)) + items


class SpdyClient:
    """Reads all that comes; `wait` tells when it shows something."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""
        self.replies: list[int] = []
        self.received: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pings: list[int] = []
        self.goaway = False
        self.is_over = False
        self.changed = asyncio.Condition()
        self.packer = zlib.compressobj(zdict=DICTIONARY)
        self.next = 1
        self.reading: asyncio.Task[None] | None = None

    def syn_stream(self, headers: dict[str, str], *, fin: bool = False) -> tuple[int, bytes]:
        number, self.next = self.next, self.next + 2
        block = self.packer.compress(pairs(headers)) + self.packer.flush(zlib.Z_SYNC_FLUSH)
        return number, control(SYN_STREAM, struct.pack(">IIH", number, 0, 0) + block, int(fin))

    async def open(self, *, fin: bool = False, **headers: str) -> int:
        return await self.open_with(headers, fin=fin)

    async def open_with(self, headers: dict[str, str], *, fin: bool = False) -> int:
        number, frame = self.syn_stream(headers, fin=fin)
        self.writer.write(frame)
        await self.writer.drain()
        return number

    async def send(self, frame: bytes) -> None:
        self.writer.write(frame)
        await self.writer.drain()

    async def write(self, stream: int, payload: bytes, *, fin: bool = False) -> None:
        await self.send(data(stream, payload, fin=fin))

    async def wait(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: condition() or self.is_over)
        assert condition(), f"the connection ended: {self.ended}, {self.resets}, {self.goaway}"

    async def wait_received(self, stream: int, expected: bytes) -> None:
        await self.wait(lambda: bytes(self.received.get(stream, b"")) == expected)

    async def wait_over(self) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.is_over)

    def start(self) -> None:
        self.reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self.reading is not None:
            self.reading.cancel()
            await asyncio.gather(self.reading, return_exceptions=True)
        self.writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ssl.SSLError):
            while True:
                first, second = struct.unpack(">II", await self.reader.readexactly(8))
                payload = await self.reader.readexactly(second & 0xFFFFFF)
                self._take(first, second >> 24, payload)
                async with self.changed:
                    self.changed.notify_all()
        async with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def _take(self, first: int, flags: int, payload: bytes) -> None:
        if not first >> 31:
            self.received.setdefault(first, bytearray()).extend(payload)
            if flags & 1:
                assert first not in self.ended
                self.ended.add(first)
            return
        assert first >> 16 == 0x8003
        kind = first & 0xFFFF
        if kind == SYN_REPLY:
            self.replies.append(struct.unpack_from(">I", payload)[0])
        elif kind == RST_STREAM:
            stream, status = struct.unpack(">II", payload)
            self.resets[stream] = status
        elif kind == PING:
            self.pings.append(struct.unpack(">I", payload)[0])
        elif kind == GOAWAY:
            self.goaway = True
        else:
            raise AssertionError(f"a frame of kind {kind}")


def upgrade_head(path: str, *protocols: str, method: str = "POST") -> bytes:
    asked = "".join(f"X-Stream-Protocol-Version: {protocol}\r\n" for protocol in protocols)
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"{asked}Content-Length: 0\r\n\r\n"
    ).encode()


@contextlib.asynccontextmanager
async def dialled(running: Running, head: bytes) -> AsyncIterator[SpdyClient]:
    """A connection that has sent a head and read the answer's; reading has not started."""
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    client = SpdyClient(reader, writer)
    try:
        writer.write(head)
        client.head = await reader.readuntil(b"\r\n\r\n")
        yield client
    finally:
        await client.stop()


@contextlib.asynccontextmanager
async def upgraded(
    running: Running, path: str, *protocols: str, method: str = "POST"
) -> AsyncIterator[SpdyClient]:
    """A connection that speaks SPDY and reads all that comes."""
    async with dialled(running, upgrade_head(path, *protocols, method=method)) as client:
        assert client.head.startswith(b"HTTP/1.1 101 "), client.head
        client.start()
        yield client
