"""port-forward over SPDY/3.1: real TLS, real sockets, a client of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from kubelet.server.streaming import port_forward, spdy
from tests.kubelet_api import Running
from tests.kubelet_settings import free_port
from tests.spdy_client import RST_STREAM, SpdyClient, control, upgraded

PROTOCOL = "portforward.k8s.io"
PATH = "/portForward/default/web"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def target(serve: Serve) -> AsyncIterator[int]:
    """A server in the pod's network; its port."""
    writers: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError):
            await serve(reader, writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says what it got, once that has ended."""
    checksum = hashlib.sha256()
    while data := await reader.read(64 * 1024):
        checksum.update(data)
    writer.write(checksum.hexdigest().encode())
    await writer.drain()
    writer.write_eof()


async def connect(client: SpdyClient, port: int, request: str = "") -> tuple[int, int]:
    """(error, data): the streams of one forwarded connection."""
    headers = {"port": str(port)} | ({"requestid": request} if request else {})
    error = await client.open_with({"streamtype": "error"} | headers, fin=True)
    data = await client.open_with({"streamtype": "data"} | headers)
    return error, data


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_bytes_go_both_ways(running: Running, method: str) -> None:
    running.allow_streams()
    async with (
        target(echo) as port,
        upgraded(running, PATH, PROTOCOL, method=method) as client,
    ):
        error, data = await connect(client, port, "0")
        await client.write(data, b"hello")
        await client.wait_received(data, b"hello")
        await client.write(data, b" and goodbye", fin=True)
        await client.wait(lambda: {error, data} <= client.ended)
        assert client.received[data] == b"hello and goodbye"
        assert not client.received[error]
    assert running.streams.calls == [("dial", "uid-of-web", port)]


async def test_a_client_that_ends_its_half_still_gets_the_answer(running: Running) -> None:
    running.allow_streams()
    block = bytes(range(256)) * 128
    async with target(digest) as port, upgraded(running, PATH, PROTOCOL) as client:
        _, data = await connect(client, port, "0")
        for _ in range(256):
            await client.write(data, block)
        await client.write(data, b"", fin=True)
        await client.wait(lambda: data in client.ended)
        assert client.received[data].decode() == hashlib.sha256(block * 256).hexdigest()


async def test_many_connections_at_once_without_mixing_them_up(running: Running) -> None:
    running.allow_streams()
    async with target(echo) as port, upgraded(running, PATH, PROTOCOL) as client:
        streams = {f"{n}": await connect(client, port, f"{n}") for n in range(100)}
        for name, (_, data) in streams.items():
            await client.write(data, name.encode() * 1000, fin=True)
        await client.wait(lambda: {d for _, d in streams.values()} <= client.ended)
        for name, (_, data) in streams.items():
            assert client.received[data] == name.encode() * 1000
        # All of that is over: its streams make room for others.
        for _, data in streams.values():
            assert data not in client.resets


async def test_nothing_listens(running: Running) -> None:
    running.allow_streams()
    port = free_port()
    async with upgraded(running, PATH, PROTOCOL) as client:
        error, data = await connect(client, port, "0")
        await client.wait(lambda: client.resets.keys() == {error, data})
        message = client.received[error].decode()
        assert message.startswith(f"error forwarding port {port} to pod web, uid uid-of-web: ")
        assert f"failed to connect to localhost:{port}" in message
        # The others go on.
        async with target(echo) as other:
            _, data = await connect(client, other, "1")
            await client.write(data, b"hello")
            await client.wait_received(data, b"hello")


async def test_the_connection_outlives_its_target(running: Running) -> None:
    running.allow_streams()
    async with target(echo) as port, upgraded(running, PATH, PROTOCOL) as client:
        error, data = await connect(client, port, "0")
        await client.write(data, b"hello")
        await client.wait_received(data, b"hello")
        running.streams.opened[0].lost.set()
        await client.wait(lambda: client.resets.keys() == {error, data})
        assert b"the supervisor hung up" in client.received[error]


async def test_a_target_that_hangs_up_first(running: Running) -> None:
    running.allow_streams()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        await writer.drain()
        writer.close()

    async with target(answer) as port, upgraded(running, PATH, PROTOCOL) as client:
        error, data = await connect(client, port, "0")
        await client.write(data, b"hello")
        await client.wait(lambda: data in client.ended)
        # kubectl lets go of the stream now.
        await client.send(control(RST_STREAM, data.to_bytes(4, "big") + b"\0\0\0\5"))
        await client.wait(lambda: error in client.ended)
        assert client.received[data] == b"hello"
        assert not client.received[error]
    await running.streams.opened[0].is_closed.wait()


async def test_a_stream_that_the_client_resets_closes_the_connection(running: Running) -> None:
    running.allow_streams()
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with target(silent) as port, upgraded(running, PATH, PROTOCOL) as client:
        error, data = await connect(client, port, "0")
        await client.write(data, b"hello")
        await client.send(control(RST_STREAM, data.to_bytes(4, "big") + b"\0\0\0\5"))
        await client.wait(lambda: error in client.ended)
        with contextlib.suppress(OSError):
            await gone.wait()


async def test_clients_that_number_no_connections(running: Running) -> None:
    running.allow_streams()
    async with target(echo) as port, upgraded(running, PATH, PROTOCOL) as client:
        for expected in (b"one", b"two"):
            _, data = await connect(client, port)
            await client.write(data, expected)
            await client.wait_received(data, expected)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"streamtype": "data"},
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "data", "port": "-1"},
        {"streamtype": "data", "port": "٣"},
        {"streamtype": "data", "port": "8" * 5000},
        {"streamtype": "data", "port": "0" * 5000 + "80"},
        {"streamtype": "stdin", "port": "80"},
    ],
)
async def test_streams_that_name_no_port_are_refused(
    running: Running, headers: dict[str, str]
) -> None:
    running.allow_streams()
    async with upgraded(running, PATH, PROTOCOL) as client:
        refused = await client.open_with(headers)
        await client.wait(lambda: client.resets == {refused: 3})
    assert running.streams.calls == []


async def test_a_second_stream_of_one_kind_is_refused(running: Running) -> None:
    running.allow_streams()
    async with target(echo) as port, upgraded(running, PATH, PROTOCOL) as client:
        await client.open(streamtype="data", port=str(port), requestid="0")
        refused = await client.open(streamtype="data", port=str(port), requestid="0")
        await client.wait(lambda: client.resets == {refused: 3})


async def test_half_a_connection_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_forward, "STREAMS_TIMEOUT_S", 0.05)
    running.allow_streams()
    async with upgraded(running, PATH, PROTOCOL) as client:
        error = await client.open(streamtype="error", port="80", requestid="0")
        await client.wait(lambda: error in client.resets)
        assert client.received[error] == b"timed out waiting for streams"


async def test_of_ten_thousand_streams_only_so_many_are_held(running: Running) -> None:
    running.allow_streams()
    async with target(echo) as port, upgraded(running, PATH, PROTOCOL) as client:
        frames = [
            client.syn_stream({"streamtype": "error", "port": str(port), "requestid": str(n)})[1]
            for n in range(10_000)
        ]
        await client.send(b"".join(frames))
        await client.wait(lambda: len(client.replies) + len(client.resets) == 10_000)
        assert len(client.replies) == spdy.MAX_STREAMS
        assert set(client.resets.values()) == {3}
        # Those that are given up make room.
        for stream in client.replies[:2]:
            await client.send(control(RST_STREAM, stream.to_bytes(4, "big") + b"\0\0\0\5"))
        _, data = await connect(client, port, "last")
        await client.write(data, b"hello")
        await client.wait_received(data, b"hello")


async def test_the_client_s_end_closes_all_its_connections(running: Running) -> None:
    running.allow_streams()
    async with target(echo) as port:
        async with upgraded(running, PATH, PROTOCOL) as client:
            for n in range(10):
                _, data = await connect(client, port, f"{n}")
                await client.write(data, b"x")
                await client.wait_received(data, b"x")
        for stream in running.streams.opened:
            await stream.is_closed.wait()
    assert len(running.streams.opened) == 10
