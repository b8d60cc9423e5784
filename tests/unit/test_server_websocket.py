"""exec, attach and port-forward by WebSocket: real TLS, aiohttp's client, and frames by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from hpk.model.errors import ParseError
from kubelet.server.streaming import client_stream, wire
from kubelet.server.streaming import websocket as websocket_module
from kubelet.server.streaming.channels import MessageReader, Part
from kubelet.server.streaming.websocket import Piece
from tests.kubelet_api import Running, raw
from tests.kubelet_settings import free_port
from tests.spdy_client import SpdyClient
from tests.unit.test_server_exec import exec_path
from tests.unit.test_server_port_forward import connect, digest, echo, target
from tests.unit.test_server_spdy import settled

V4, V5, BASE64 = "v4.channel.k8s.io", "v5.channel.k8s.io", "base64.channel.k8s.io"
MIB = 1024 * 1024


@dataclass
class Messages:
    """What came on each channel, to the connection's end."""

    channels: dict[int, bytes] = field(default_factory=dict)
    first: tuple[int, bytes] | None = None
    code: int | None = None

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.channels[3]))


@contextlib.asynccontextmanager
async def socket(
    running: Running, path: str, *protocols: str
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    running.allow_streams()
    async with (
        running.client() as client,
        client.ws_connect(path, protocols=protocols, max_msg_size=0) as connection,
    ):
        transport = connection._writer.transport
        assert transport is not None
        tcp = transport.get_extra_info("socket")
        yield connection
        # aiohttp does not wait for its connections' ends.
        transport.abort()
    while tcp.fileno() != -1:
        await asyncio.sleep(0)


def decoded(message: aiohttp.WSMessage) -> tuple[int, bytes]:
    if message.type is aiohttp.WSMsgType.TEXT:
        return int(message.data[0]), base64.b64decode(message.data[1:])
    assert message.type is aiohttp.WSMsgType.BINARY
    return message.data[0], message.data[1:]


async def read_all(connection: aiohttp.ClientWebSocketResponse) -> Messages:
    found = Messages()
    async for message in connection:
        channel, data = decoded(message)
        found.first = found.first or (channel, data)
        found.channels[channel] = found.channels.get(channel, b"") + data
    found.code = connection.close_code
    return found


@pytest.mark.parametrize("protocol", [V5, V4, "v4.base64.channel.k8s.io"])
async def test_outputs_and_exit_code(running: Running, protocol: str) -> None:
    path = exec_path("sh", "-c", "echo out; echo err >&2; exit 17")
    async with socket(running, path, "v9.channel.k8s.io", protocol) as connection:
        assert connection.protocol == protocol
        found = await read_all(connection)
    assert found.first == (1, b"")
    assert (found.channels[1], found.channels[2]) == (b"out\n", b"err\n")
    assert found.status["reason"] == "NonZeroExitCode"
    assert found.status["details"] == {"causes": [{"reason": "ExitCode", "message": "17"}]}
    assert found.code == 1000


@pytest.mark.parametrize("protocols", [(), ("channel.k8s.io",), (BASE64,)])
async def test_the_first_protocols_tell_failures_as_text(
    running: Running, protocols: tuple[str, ...]
) -> None:
    for script, expected in (("exit 17", b"exit code 17"), ("true", b"")):
        async with socket(running, exec_path("sh", "-c", script), *protocols) as connection:
            found = await read_all(connection)
        assert found.channels.get(3, b"").endswith(expected)
        assert bool(found.channels.get(3)) == bool(expected)


async def test_the_fifth_protocol_ends_the_input(running: Running) -> None:
    block = bytes(range(256)) * 256
    async with socket(running, exec_path("cat", streams="input=1&output=1"), V5) as connection:

        async def write() -> None:
            for _ in range(64):
                await connection.send_bytes(b"\0" + block)
            await connection.send_bytes(b"\xff\0")

        _, found = await asyncio.gather(write(), read_all(connection))
    assert found.channels[1] == block * 64
    assert found.status["status"] == "Success"


async def test_earlier_protocols_cannot_end_it(running: Running) -> None:
    path = exec_path("sh", "-c", "read line; echo got $line", streams="input=1&output=1")
    for protocol in (V4, "channel.k8s.io", BASE64, "v4.base64.channel.k8s.io"):
        async with socket(running, path, protocol) as connection:
            if "base64" in protocol:
                await connection.send_str("0" + base64.b64encode(b"this\n").decode())
            else:
                await connection.send_bytes(b"\xff\0")
                await connection.send_str("\0this\n")  # the Python client sends text so
            found = await read_all(connection)
        assert found.channels[1] == b"got this\n"


async def test_one_message_of_any_size(running: Running) -> None:
    path = exec_path("wc", "-c", streams="input=1&output=1")
    async with socket(running, path, V5) as connection:
        await connection.send_bytes(b"\0" + bytes(40 * MIB))
        await connection.send_bytes(b"\xff\0")
        found = await read_all(connection)
    assert found.channels[1].strip() == str(40 * MIB).encode()


async def test_a_terminal_and_its_sizes(running: Running) -> None:
    script = "trap 'stty size' WINCH; echo ready; read line; exit 3"
    path = exec_path("sh", "-c", script, streams="input=1&output=1&error=1&tty=1")
    async with socket(running, path, V5) as connection:
        shown = b""
        async for message in connection:
            channel, data = decoded(message)
            shown += data if channel == 1 else b""
            if b"ready" in shown and b"25 80" not in shown:
                await connection.send_bytes(b'\4{"Width":80,"Height":25}')
            if b"25 80" in shown:
                break
        await connection.send_bytes(b"\0go\r")
        found = await read_all(connection)
    assert found.status["details"]["causes"][0]["message"] == "3"


async def test_attach(running: Running) -> None:
    running.streams.program = ("sh", "-c", "read line; echo got $line; exit 3")
    async with socket(running, "/attach/default/web/main?input=1&output=1", V5) as connection:
        await connection.send_bytes(b"\0this\n")
        found = await read_all(connection)
    assert found.channels[1] == b"got this\n"
    assert found.status["status"] == "Success"


async def test_a_program_that_is_not_there(running: Running) -> None:
    async with socket(running, exec_path("no-such-program"), V5) as connection:
        found = await read_all(connection)
    assert found.status["reason"] == "InternalError"
    assert "executable file not found" in found.status["message"]


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_client_that_hangs_up_ends_the_program(running: Running, how: str) -> None:
    async with socket(running, exec_path("sleep", "600"), V5) as connection:
        while not running.streams.opened:
            await asyncio.sleep(0)
        if how == "close":
            await connection.close()
        else:
            transport = connection._writer.transport
            assert transport is not None
            transport.abort()
        await running.streams.opened[0].is_closed.wait()


HEAD = (
    "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n"
    "Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
)
KEY = base64.b64encode(bytes(16)).decode()


def head(path: str, protocol: str = V5, **other: str) -> bytes:
    values = {"method": "GET", "version": "13", "key": KEY} | other
    return HEAD.format(path=path, protocol=protocol, **values).encode()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head(exec_path("id"), "v9.channel.k8s.io"), 403),
        (head(exec_path("id"), "SPDY/3.1+portforward.k8s.io"), 403),
        (head(exec_path("id"), method="POST"), 405),
        (head(exec_path("id"), version="8"), 400),
        (head(exec_path("id"), key="short"), 400),
        (head(exec_path("id"), key="é"), 400),
        (head(exec_path("id", streams="")), 400),
        (head(exec_path("id", where="web/absent")), 500),
        (head("/portForward/default/web", V4), 400),
        (head("/portForward/default/web?port=0", V4), 400),
        (head("/portForward/default/web?port=70000", V4), 400),
        (head("/portForward/default/web?port=1,x", V4), 400),
        (head("/portForward/default/web?port=" + "1," * 40 + "1", V4), 400),
        (head("/portForward/default/web?port=80", "v9.channel.k8s.io"), 403),
        (head("/portForward/default/absent?port=80", V4), 404),
    ],
)
async def test_what_is_refused_before_anything_begins(
    running: Running, request_head: bytes, status: int
) -> None:
    running.allow_streams()
    context = running.context(running.clients.issue("api-server"))
    answer = await raw(running, context, request_head)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert running.streams.calls == []


async def test_who_may_not_exec_may_not_by_websocket(running: Running) -> None:
    context = running.context(running.clients.issue("somebody"))
    answer = await raw(running, context, head(exec_path("id")))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"verb=get, resource=nodes, subresource(s)=[proxy]" in answer


def frame(payload: bytes, *, opcode: int = 2, fin: bool = True, masked: bool = True) -> bytes:
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        length = bytes((len(payload) | (0x80 if masked else 0),))
    elif len(payload) < 65536:
        length = struct.pack(">BH", 126 | 0x80, len(payload))
    else:
        length = struct.pack(">BQ", 127 | 0x80, len(payload))
    return bytes((first,)) + length + (bytes(4) if masked else b"") + payload


BROKEN = {
    "not masked": frame(b"\0x", masked=False),
    "a reserved bit": b"\xc2" + frame(b"\0x")[1:],
    "an unknown opcode": frame(b"\0x", opcode=5),
    "a control frame in pieces": frame(b"x", opcode=9, fin=False),
    "a long ping": frame(bytes(126), opcode=9),
    "a continuation of nothing": frame(b"x", opcode=0),
    "a message within another": frame(b"\0x", fin=False) + frame(b"\0y"),
    "text that is no UTF-8": frame(b"\0\xff\xfe", opcode=1),
    "a length of 2^63": b"\x82\xff" + b"\xff" * 8 + bytes(4),
    "a length longer than need be": b"\x82\xfe\0\1" + bytes(4) + b"x",
    "an end of no channel": frame(b"\xff"),
    "an end of channel 9": frame(b"\xff\x09"),
    "an end of many channels": frame(b"\xff" + bytes(100)),
    "a close with half a code": frame(b"\3", opcode=8),
}


@contextlib.asynccontextmanager
async def by_hand(
    running: Running, path: str, protocol: str = V5
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    running.allow_streams()
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    try:
        writer.write(head(path, protocol))
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
async def test_a_client_that_breaks_the_protocol_is_left_and_its_program_ended(
    running: Running, broken: bytes
) -> None:
    async with by_hand(running, exec_path("cat", streams="input=1&output=1")) as (reader, writer):
        while not running.streams.opened:
            await asyncio.sleep(0)
        writer.write(broken)
        await reader.read()
        await running.streams.opened[0].is_closed.wait()


async def test_messages_that_mean_nothing_change_nothing(running: Running) -> None:
    path = exec_path("cat", streams="input=1&output=1")
    async with by_hand(running, path) as (reader, writer):
        for harmless in (
            frame(b""),
            frame(b"\1of a channel that is ours"),
            frame(b"\4no size"),
            frame(b"\x63of no channel"),
            frame(b"ping", opcode=9),
            frame(b"pong", opcode=10),
            frame(b"", fin=False) + frame(b"", opcode=0, fin=False) + frame(b"\0he", opcode=0),
            frame(b"\0l", fin=False) + frame(b"x", opcode=9) + frame(b"lo", opcode=0),
            frame(b"\xff", fin=False) + frame(b"\0", opcode=0),
        ):
            writer.write(harmless)
        answers = frames_of(await reader.read())
        assert [payload for opcode, payload in answers if opcode == 10] == [b"ping", b"x"]
        outputs = [payload[1:] for opcode, payload in answers if opcode == 2 and payload[0] == 1]
        assert b"".join(outputs) == b"hello"
        assert json.loads(answers[-2][1][1:])["status"] == "Success"
        assert answers[-1][0] == 8


def frames_of(answer: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of short frames, none of them masked."""
    found, at = [], 0
    while at < len(answer):
        length = answer[at + 1]
        assert length < 126
        found.append((answer[at] & 15, answer[at + 2 : at + 2 + length]))
        at += 2 + length
    return found


async def test_of_a_program_whose_client_never_reads_a_window_is_read(running: Running) -> None:
    path = exec_path("cat", "/dev/zero", streams="output=1")
    async with by_hand(running, path) as (_, writer):
        while not running.streams.opened:
            await asyncio.sleep(0)
        program = running.streams.opened[0]
        assert await settled(running, lambda: program.read_bytes) < 16 * MIB
        writer.transport.abort()
        await program.is_closed.wait()


async def test_of_an_endless_message_a_window_is_read(running: Running) -> None:
    path = exec_path("sleep", "600", streams="input=1&output=1")
    async with by_hand(running, path) as (_, writer):
        sent = 0

        async def write() -> None:
            nonlocal sent
            writer.write(b"\x82\xff" + struct.pack(">Q", 2**40) + bytes(4))
            while True:
                writer.write(bytes(64 * 1024))
                await writer.drain()
                sent += 64 * 1024

        writing = asyncio.create_task(write())
        assert await settled(running, lambda: sent) < 16 * MIB
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_an_idle_connection_is_ended(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_TIMEOUT_S", 0.05)
    async with by_hand(running, exec_path("sleep", "600")) as (reader, _):
        with contextlib.suppress(OSError):
            await reader.read()
    for stream in running.streams.opened:
        await stream.is_closed.wait()


async def test_a_client_that_never_hangs_up_is_left(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT_S", 0.05)
    path = exec_path("true", streams="input=1&output=1")
    async with by_hand(running, path) as (reader, writer):
        writer.write(frame(b"\0" + bytes(2 * client_stream.MAX_UNREAD_BYTES)))
        with contextlib.suppress(OSError):
            await reader.read()
        while running.server._upgrades:
            await asyncio.sleep(0)


async def test_the_old_port_forward(running: Running) -> None:
    refused = free_port()
    async with target(echo) as port:
        path = f"/portForward/default/web?port={port},{refused}&port={port}"
        async with socket(running, path, V5, V4) as connection:
            assert connection.protocol == V4
            await connection.send_bytes(b"\0hello")
            await connection.send_bytes(b"\4world")
            found: dict[int, bytes] = {}
            async for message in connection:
                channel, data = decoded(message)
                found[channel] = found.get(channel, b"") + data
                if found.get(0, b"")[2:] == b"hello" and found.get(4, b"")[2:] == b"world":
                    break
            while not found.get(3, b"")[2:]:
                channel, data = decoded(await connection.receive())
                found[channel] = found.get(channel, b"") + data
    assert found[3].startswith(
        refused.to_bytes(2, "little") + b"error forwarding port %d to pod web" % refused
    )
    for channel, number in ((0, port), (1, port), (2, refused), (4, port), (5, port)):
        assert found[channel][:2] == number.to_bytes(2, "little")


async def test_the_old_port_forward_ends_with_its_target(running: Running) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()

    async with target(answer) as port:
        path = f"/portForward/default/web?port={port}"
        async with socket(running, path, V4) as connection:
            await connection.send_bytes(b"\0hello")
            found = await read_all(connection)
    assert found.channels == {
        0: port.to_bytes(2, "little") + b"hello",
        1: port.to_bytes(2, "little"),
    }
    assert found.code == 1000


class Tunnel:
    """A stream reader's and writer's part for SpdyClient, in a WebSocket's messages."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection
        self.reader = asyncio.StreamReader()
        self.unsent = bytearray()
        self.receiving = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        async for message in self.connection:
            assert message.type is aiohttp.WSMsgType.BINARY
            self.reader.feed_data(message.data)
        self.reader.feed_eof()

    def write(self, data: bytes) -> None:
        self.unsent += data

    async def drain(self) -> None:
        data, self.unsent = bytes(self.unsent), bytearray()
        await self.connection.send_bytes(data)


async def test_port_forward_through_a_tunnel(running: Running) -> None:
    block = bytes(range(256)) * 128
    protocol = "SPDY/3.1+portforward.k8s.io"
    async with (
        target(digest) as port,
        target(echo) as other,
        socket(running, "/portForward/default/web", protocol) as connection,
    ):
        assert connection.protocol == protocol
        tunnel = Tunnel(connection)
        client = SpdyClient(tunnel.reader, tunnel)  # type: ignore[arg-type]
        client.start()
        _, data = await connect(client, port, "0")
        _, quick = await connect(client, other, "1")
        for _ in range(256):
            await client.write(data, block)
        await client.write(quick, b"hello")
        await client.wait_received(quick, b"hello")
        await client.write(data, b"", fin=True)
        await client.wait(lambda: data in client.ended)
        assert len(client.received[data]) == 64
        error, refused = await connect(client, free_port(), "2")
        await client.wait(lambda: {error, refused} <= client.resets.keys())
        await connection.close()
        await tunnel.receiving
        assert client.reading is not None
        await client.reading
    for stream in running.streams.opened:
        await stream.is_closed.wait()


@pytest.mark.parametrize("cut", range(1, 10))
def test_base64_in_pieces(cut: int) -> None:
    reader = MessageReader(is_base64=True)
    text = b"0" + base64.b64encode(b"hello, you")
    parts = [reader.feed(Piece(text[:cut], False)), reader.feed(Piece(text[cut:], True))]
    assert b"".join(part.data for part in parts if part) == b"hello, you"
    assert reader.feed(Piece(b"1", True)) == Part(1, b"", True)
    with pytest.raises(ParseError):
        reader.feed(Piece(b"1!!!!", True))
