"""Sessions of the two frame layers as lists of frames, and what may befall such a list."""

from __future__ import annotations

import functools
import random
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from kubelet.server.streaming.spdy_headers import DICTIONARY

CAPTURES = Path(__file__).parent / "captures"
"""What kubectl 1.37 sent after its request: `NAME.spdy`, `NAME.websocket` and `NAME.tunnel`
(port-forward's SPDY in a WebSocket)."""

_INTERESTING = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def spdy_control(kind: int, payload: bytes, flags: int = 0, version: int = 0x8003) -> bytes:
    return struct.pack(">HHI", version, kind, (flags << 24 | len(payload)) & 0xFFFFFFFF) + payload


def spdy_data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream & 0x7FFFFFFF, flags << 24 | len(payload)) + payload


def websocket_frame(
    payload: bytes, opcode: int = 2, fin: bool = True, mask: bytes = b"\1\2\3\4"
) -> bytes:
    first = bytes(((0x80 if fin else 0) | opcode,))
    if len(payload) < 126:
        length = bytes((len(payload) | 0x80,))
    elif len(payload) < 65536:
        length = struct.pack(">BH", 254, len(payload))
    else:
        length = struct.pack(">BQ", 255, len(payload))
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return first + length + mask + masked


class SpdyGrammar:
    """Makes frames as a client may send them, most of them well-formed."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._packer = zlib.compressobj(zdict=DICTIONARY)
        self._next = 1

    def session(self) -> list[bytes]:
        """An exec or a port-forward, with more or less of what belongs to it."""
        make = self._chance.choice((self._exec, self._port_forward))
        frames = make()
        for _ in range(self._chance.randrange(20)):
            frames.insert(self._chance.randrange(len(frames) + 1), self.frame())
        return frames

    def frame(self) -> bytes:
        chance = self._chance
        stream = chance.choice((0, 1, 3, 5, 7, 99, self._next, *_INTERESTING))
        word = struct.pack(">I", chance.choice(_INTERESTING))
        at = struct.pack(">I", stream & 0xFFFFFFFF)
        return chance.choice(
            (
                lambda: spdy_data(
                    stream, chance.randbytes(chance.randrange(3000)), chance.choice((0, 0, 1, 255))
                ),
                lambda: self._syn(
                    {"streamtype": chance.choice(("stdin", "resize", "data", "x" * 900))}
                ),
                lambda: spdy_control(3, at + word),
                lambda: spdy_control(4, struct.pack(">I", 1) + word + word),
                lambda: spdy_control(6, word),
                lambda: spdy_control(7, at + word),
                lambda: spdy_control(8, at + self._block({"a": "b"})),
                lambda: spdy_control(2, at + self._block({})),
                lambda: spdy_control(9, at + word),
                lambda: spdy_control(chance.randrange(20), chance.randbytes(chance.randrange(40))),
                lambda: spdy_control(1, at + bytes(6) + self._bomb()),
            )
        )()

    def _exec(self) -> list[bytes]:
        kinds = ["error", "stdin", "stdout", "stderr", "resize"]
        frames = [self._syn({"streamtype": kind}) for kind in kinds]
        frames += [spdy_data(3, self._chance.randbytes(200)) for _ in range(5)]
        frames += [spdy_data(9, b'{"Width":80,"Height":24}'), spdy_data(3, b"", 1)]
        return frames

    def _port_forward(self) -> list[bytes]:
        frames = []
        for request in range(self._chance.randrange(1, 6)):
            headers = {
                "port": str(self._chance.choice((1, 80, 0, 65535, 70000))),
                "requestid": str(request),
            }
            frames.append(self._syn({"streamtype": "error"} | headers, fin=True))
            frames.append(self._syn({"streamtype": "data"} | headers))
            frames.append(spdy_data(self._next - 2, self._chance.randbytes(500)))
            frames.append(spdy_control(3, struct.pack(">II", self._next - 2, 5)))
        return frames

    def _syn(self, headers: dict[str, str], *, fin: bool = False) -> bytes:
        number, self._next = self._next, self._next + 2
        fixed = struct.pack(">IIH", number, 0, 0)
        return spdy_control(1, fixed + self._block(headers), int(fin))

    def _block(self, headers: dict[str, str]) -> bytes:
        def text(value: str) -> bytes:
            return struct.pack(">I", len(value)) + value.encode()

        pairs = b"".join(text(name) + text(value) for name, value in headers.items())
        return self._packed(struct.pack(">I", len(headers)) + pairs)

    def _bomb(self) -> bytes:
        count = self._chance.choice(_INTERESTING)
        return self._packed(struct.pack(">I", count) + bytes(self._chance.choice((0, 4, 100_000))))

    def _packed(self, data: bytes) -> bytes:
        return self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)


class WebSocketGrammar:
    """Makes messages as a client may send them, most of them well-formed."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def session(self) -> list[bytes]:
        """Some input, sizes, ends, pings, and a close."""
        frames = [self.frame() for _ in range(self._chance.randrange(1, 30))]
        frames.append(websocket_frame(b"\xff\0"))
        if self._chance.random() < 0.5:
            frames.append(websocket_frame(struct.pack(">H", 1000), 8))
        return frames

    def frame(self) -> bytes:
        chance = self._chance
        channel = bytes((chance.choice((0, 0, 0, 1, 4, 5, 48, 52, 254, 255)),))
        payload = chance.choice(
            (b"", b"x", b'{"Width":1,"Height":2}', b"aGVsbG8=", chance.randbytes(70000), b"\0")
        )
        opcode = chance.choice((2, 2, 2, 2, 1, 0, 9, 10, 8, chance.randrange(16)))
        return websocket_frame(
            channel + payload, opcode, chance.random() < 0.8, chance.randbytes(4)
        )


def tunnelled(chance: random.Random, frames: Sequence[bytes]) -> list[bytes]:
    """SPDY's frames in messages, cut anywhere."""
    whole, messages = b"".join(frames), []
    while whole:
        size = chance.randrange(1, 2000)
        messages.append(websocket_frame(whole[:size], 2, True, chance.randbytes(4)))
        whole = whole[size:]
    return messages


@functools.cache
def captured(suffix: str) -> tuple[bytes, ...]:
    """What kubectl sent, a session each."""
    return tuple(path.read_bytes() for path in sorted(CAPTURES.glob(f"*.{suffix}")))


def spdy_split(data: bytes) -> list[bytes]:
    """The frames in a capture."""
    frames = []
    while len(data) >= 8:
        length = 8 + (struct.unpack_from(">I", data, 4)[0] & 0xFFFFFF)
        frames.append(data[:length])
        data = data[length:]
    return frames


def websocket_split(data: bytes) -> list[bytes]:
    """The frames in a capture."""
    frames = []
    while len(data) >= 2:
        short = data[1] & 0x7F
        extra = {126: 2, 127: 8}.get(short, 0)
        payload = int.from_bytes(data[2 : 2 + extra], "big") if extra else short
        length = 2 + extra + 4 + payload
        frames.append(data[:length])
        data = data[length:]
    return frames


def mutated(chance: random.Random, frames: Sequence[bytes]) -> bytes:
    """A session as bytes, with some frames and some bytes of it not as they were."""
    changed = list(frames)
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        how = chance.randrange(6)
        if how == 0:
            del changed[at]
        elif how == 1:
            changed.insert(at, changed[at])
        elif how == 2:
            other = chance.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        elif how == 3:
            changed[at] = changed[at][: chance.randrange(len(changed[at]) + 1)]
        elif how == 4:
            changed[at] = _bits(chance, changed[at])
        else:
            changed[at] = _number(chance, changed[at])
    return b"".join(changed)


def _bits(chance: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(chance.randrange(1, 4)):
        if data:
            # Most of what matters is in the beginning.
            at = chance.randrange(min(len(data), chance.choice((8, 16, 1 << 20))))
            data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


def _number(chance: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    if len(data) >= 4:
        at = chance.randrange(min(len(data) - 3, 24))
        struct.pack_into(">I", data, at, chance.choice(_INTERESTING))
    return bytes(data)
