"""The headers of SPDY streams: pairs of texts, compressed by one zlib stream for each direction.

What comes may be made to grow without end, so no more is unpacked than a block may hold.

Source: SPDY draft 3.1, 2.6.10; moby/spdystream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from hpk.model.errors import ParseError

MAX_BLOCK_BYTES = 32 * 1024
"""Unpacked; the streams of exec and port-forward need some hundred."""
MAX_HEADERS = 128

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


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    return struct.pack(">I", len(data)) + data


def _dictionary() -> bytes:
    before, status, after = _WORDS.split("|")
    words = (*before.split(), status, *after.split())
    return b"".join(map(_text, words)) + _TAIL.encode()


DICTIONARY = _dictionary()
"""What both ends' compression begins with."""


class HeaderPacker:
    """Packs the headers that one end sends, in the order in which they are sent."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        """One block."""
        pairs = b"".join(_text(name) + _text(value) for name, value in headers.items())
        packed = self._zlib.compress(struct.pack(">I", len(headers)) + pairs)
        return packed + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderUnpacker:
    """Unpacks the headers that the other end sends; of no use any more after an error."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, block: bytes) -> dict[str, str]:
        """One block.

        :raises ParseError: it is malformed or too large.
        """
        try:
            data = self._zlib.decompress(block, MAX_BLOCK_BYTES + 1)
        except zlib.error as error:
            raise ParseError(f"the headers of a stream: {error}") from error
        if len(data) > MAX_BLOCK_BYTES or self._zlib.unconsumed_tail or self._zlib.eof:
            raise ParseError(f"the headers of a stream are more than {MAX_BLOCK_BYTES} bytes")
        return _parse(data)


def _parse(data: bytes) -> dict[str, str]:
    try:
        (count,) = struct.unpack_from(">I", data)
        if count > MAX_HEADERS:
            raise ParseError(f"a stream with {count} headers")
        at, texts = 4, []
        for _ in range(2 * count):
            (length,) = struct.unpack_from(">I", data, at)
            at += 4 + length
            if at > len(data):
                raise ParseError("the headers of a stream end early")
            texts.append(data[at - length : at].decode("latin-1"))
    except struct.error as error:
        raise ParseError("the headers of a stream end early") from error
    headers: dict[str, str] = {}
    for name, value in zip(texts[::2], texts[1::2], strict=True):
        if name != name.lower() or name in headers:
            raise ParseError("a header of a stream comes twice or is not in lower case")
        headers[name] = value
    if at != len(data):
        raise ParseError("bytes after the headers of a stream")
    return headers
