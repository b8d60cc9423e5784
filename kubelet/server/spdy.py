"""SPDY/3.1, as much of it as the answer to an exec needs: streams opened by the client, data to it.

The client's own frames are read for the headers of its streams and otherwise skipped; there is no
flow control, for what is sent fits into the smallest window (64 KiB).

Source: the SPDY protocol, draft 3.1 (dev.chromium.org); k8s.io/streaming, httpstream/spdy.
"""

from __future__ import annotations

import asyncio
import struct
import zlib

from hpk.model.errors import ParseError

SYN_STREAM, SYN_REPLY, PING = 1, 2, 6
FIN = 0x01
_VERSION = 0x8003
_MAX_FRAME_BYTES = 256 * 1024
_MAX_HEADERS_BYTES = 64 * 1024

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language"
    " accept-ranges age allow authorization cache-control connection content-base content-encoding"
    " content-language content-length content-location content-md5 content-range content-type date"
    " etag expect expires from host if-match if-modified-since if-none-match if-range"
    " if-unmodified-since last-modified location max-forwards pragma proxy-authenticate"
    " proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade"
    " user-agent vary via warning www-authenticate method get status|200 OK|version HTTP/1.1 url"
    " public set-cookie keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00"
    " Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    """What both ends' compression of headers begins with."""
    before, status, after = _WORDS.split("|")
    words = (*before.split(), status, *after.split())
    return b"".join(map(_text, words)) + _TAIL.encode()


def _text(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


class Connection:
    """The server's end of one connection; used by one task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unpacker = zlib.decompressobj(zdict=dictionary())
        self._packer = zlib.compressobj(zdict=dictionary())

    async def accept_stream(self) -> tuple[int, dict[str, str]]:
        """The next stream that the client opens, answered: its number and its headers.

        :raises ParseError: what comes is no SPDY.
        :raises asyncio.IncompleteReadError: the client has gone.
        """
        while True:
            kind, payload = await self._read()
            if kind == PING:
                await self._write_control(PING, payload)
            elif kind == SYN_STREAM:
                if len(payload) < 10:
                    raise ParseError("a SYN_STREAM frame ends early")
                number = struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF
                headers = self._unpack(payload[10:])
                block = self._packer.compress(struct.pack(">I", 0))
                block += self._packer.flush(zlib.Z_SYNC_FLUSH)
                await self._write_control(SYN_REPLY, struct.pack(">I", number) + block)
                return number, headers

    def finish_stream(self, number: int, data: bytes = b"") -> None:
        """Send the last of a stream."""
        self._writer.write(struct.pack(">II", number, FIN << 24 | len(data)) + data)

    async def wait_closed_by_client(self) -> None:
        """Read and forget what the client sends, to its end."""
        while await self._reader.read(16 * 1024):
            pass

    async def _write_control(self, kind: int, payload: bytes) -> None:
        self._writer.write(struct.pack(">HHI", _VERSION, kind, len(payload)) + payload)
        await self._writer.drain()  # a client that only sends does not make us keep the answers

    async def _read(self) -> tuple[int, bytes]:
        """One frame as (kind, payload); kind 0 for data."""
        first, second = struct.unpack(">II", await self._reader.readexactly(8))
        length = second & 0xFFFFFF
        if length > _MAX_FRAME_BYTES:
            raise ParseError(f"a frame of {length} bytes")
        payload = await self._reader.readexactly(length)
        if not first >> 31:
            return 0, payload
        if first >> 16 != _VERSION:
            raise ParseError(f"a frame that begins with {first:#010x} is no SPDY/3")
        return first & 0xFFFF, payload

    def _unpack(self, block: bytes) -> dict[str, str]:
        try:
            data = self._unpacker.decompress(block, _MAX_HEADERS_BYTES)
            (count,) = struct.unpack_from(">I", data)
            at, texts = 4, []
            for _ in range(2 * min(count, 256)):
                (length,) = struct.unpack_from(">I", data, at)
                texts.append(data[at + 4 : at + 4 + length].decode("latin-1"))
                at += 4 + length
        except (zlib.error, struct.error) as error:
            raise ParseError(f"the headers of a stream: {error}") from error
        return dict(zip(texts[::2], texts[1::2], strict=True))
