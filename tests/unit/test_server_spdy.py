"""SPDY's frames from clients that mean harm, or are slow, over real TLS; and what that costs us."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from hpk.model.errors import ParseError
from kubelet.server.streaming import client_stream, command_spdy, spdy_headers, wire
from kubelet.server.streaming.spdy_frames import Data, FrameReader, SynStream
from kubelet.server.streaming.spdy_headers import DICTIONARY, HeaderPacker, HeaderUnpacker
from tests.kubelet_api import Running, get
from tests.spdy_client import (
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    SYN_STREAM,
    WINDOW_UPDATE,
    SpdyClient,
    control,
    data,
    pairs,
    upgraded,
)
from tests.unit.test_server_exec import V4, exec_path, open_streams, read_status

WORDS = struct.Struct(">II")
MIB = 1024 * 1024


def block(raw: bytes, packer: zlib._Compress | None = None) -> bytes:
    packer = packer or zlib.compressobj(zdict=DICTIONARY)
    return packer.compress(raw) + packer.flush(zlib.Z_SYNC_FLUSH)


def syn(headers: bytes, stream: int = 1) -> bytes:
    return control(SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + headers)


BOMB = block(struct.pack(">II", 1, 0xFFFFFF) + bytes(20 * MIB))

BROKEN = {
    "a zlib bomb": syn(BOMB),
    "a bomb of many headers": syn(block(struct.pack(">I", 0xFFFFFFFF))),
    "headers that are no zlib": syn(b"\x00" * 40),
    "another dictionary": syn(block(pairs({"a": "b"}), zlib.compressobj(zdict=b"other"))),
    "a zlib stream that ends": syn(zlib.compress(pairs({}))),
    "headers that end early": syn(block(pairs({"streamtype": "error"})[:-2])),
    "bytes after the headers": syn(block(pairs({}) + b"x")),
    "headers in capitals": syn(block(pairs({"StreamType": "error"}))),
    "a header twice": syn(block(struct.pack(">I", 2) + 2 * pairs({"a": "b"})[4:])),
    "a short SYN_STREAM": control(SYN_STREAM, b"\0\0\0\1"),
    "stream 0": syn(block(pairs({})), stream=0),
    "data of stream 0": data(0, b"x"),
    "a long control frame": struct.pack(">HHI", 0x8003, PING, 0xFFFFFF),
    "a control frame of no kind": control(77, b""),
    "kind 5": control(5, b""),
    "another version": struct.pack(">HHI", 0x8002, PING, 4) + b"\0\0\0\1",
    "a long PING": control(PING, bytes(8)),
    "a short RST_STREAM": control(RST_STREAM, bytes(4)),
    "a RST_STREAM of stream 0": control(RST_STREAM, bytes(8)),
    "SETTINGS that lie": control(SETTINGS, struct.pack(">I", 0xFFFFFFFF)),
    "a long WINDOW_UPDATE": control(WINDOW_UPDATE, bytes(12)),
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN.keys())
async def test_a_client_that_breaks_the_protocol_is_left_and_its_program_ended(
    running: Running, frame: bytes
) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("sleep", "600"), V4) as client:
        if frame[:4] == b"\x80\x03\x00\x01":
            await client.send(frame)  # as the first: the compression begins anew
        else:
            await open_streams(client, "error", "stdout", "stderr")
            await client.wait(lambda: len(client.replies) == 3)
            while not running.streams.opened:
                await asyncio.sleep(0)
            await client.send(frame)
        await client.wait_over()
    for stream in running.streams.opened:
        await stream.is_closed.wait()
    assert (await get(running, "/healthz/ping"))[0] == 200


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15])
async def test_a_frame_that_ends_early(running: Running, length: int) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("cat", streams="input=1&output=1"), V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        await client.wait(lambda: len(client.replies) == 3)
        while not running.streams.opened:
            await asyncio.sleep(0)
        await client.send(data(streams["stdin"], b"0123456789")[:length])
        client.writer.close()
        await running.streams.opened[0].is_closed.wait()


async def test_frames_that_mean_nothing_here_change_nothing(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("cat", streams="input=1&output=1"), V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        await client.wait(lambda: len(client.replies) == 3)
        stdin = streams["stdin"]
        packed = client.packer.compress(pairs({"x": "y"})) + client.packer.flush(zlib.Z_SYNC_FLUSH)
        for frame in (
            control(SETTINGS, struct.pack(">III", 1, 4, 100)),
            control(WINDOW_UPDATE, WORDS.pack(stdin, 1)),
            control(WINDOW_UPDATE, WORDS.pack(0, 1)),
            control(HEADERS, stdin.to_bytes(4, "big") + packed),
            control(PING, (2).to_bytes(4, "big")),
            control(PING, (77).to_bytes(4, "big")),
            control(RST_STREAM, WORDS.pack(99, 1)),
            data(99, b"of a stream that is not there"),
            data(stdin, b""),
        ):
            await client.send(frame)
        number, again = client.syn_stream({"streamtype": "error"})
        await client.send(again.replace(number.to_bytes(4, "big"), (1).to_bytes(4, "big"), 1))
        await client.write(stdin, b"hello", fin=True)
        assert (await read_status(client, streams))["status"] == "Success"
        assert client.received[streams["stdout"]] == b"hello"
        assert client.pings == [77]
        assert client.resets == {1: 1}  # the number had been used


async def test_a_data_frame_of_sixteen_mebibytes_goes_through_in_pieces(running: Running) -> None:
    running.allow_streams()
    path = exec_path("wc", "-c", streams="input=1&output=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        await client.write(streams["stdin"], bytes(16 * MIB - 1), fin=True)
        assert (await read_status(client, streams))["status"] == "Success"
        assert client.received[streams["stdout"]].strip() == str(16 * MIB - 1).encode()


async def settled(running: Running, number: Callable[[], int]) -> int:
    """A number that grows until what is full stops it."""
    while True:
        before = number()
        for _ in range(10):
            await get(running, "/healthz/ping")
        if number() == before:
            return before


async def test_of_a_program_whose_client_never_reads_a_window_is_read(running: Running) -> None:
    running.allow_streams()
    path = exec_path("cat", "/dev/zero", streams="output=1")
    async with upgraded(running, path, V4) as client:
        assert client.reading is not None
        client.reading.cancel()
        await open_streams(client, "error", "stdout")
        while not running.streams.opened:
            await asyncio.sleep(0)
        program = running.streams.opened[0]
        # The client's reader, both kernels' buffers and our own: nothing near what there is.
        assert await settled(running, lambda: program.read_bytes) < 16 * MIB
        await client.stop()
        await program.is_closed.wait()


async def test_of_a_client_whose_program_never_reads_a_window_is_read(running: Running) -> None:
    running.allow_streams()
    path = exec_path("sleep", "600", streams="input=1&output=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        await client.wait(lambda: len(client.replies) == 3)
        sent = 0

        async def write() -> None:
            nonlocal sent
            while True:
                await client.write(streams["stdin"], bytes(32 * 1024))
                sent += 32 * 1024

        writing = asyncio.create_task(write())
        assert await settled(running, lambda: sent) < 16 * MIB
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_a_client_that_only_sends_pings_does_not_make_us_keep_the_answers(
    running: Running,
) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("sleep", "600"), V4) as client:
        assert client.reading is not None
        client.reading.cancel()
        pings, sent = control(PING, b"\0\0\0\1") * 4096, 0

        async def write() -> None:
            nonlocal sent
            while True:
                await client.send(pings)
                sent += len(pings)

        writing = asyncio.create_task(write())
        assert await settled(running, lambda: sent) < 32 * MIB
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def test_an_idle_connection_is_ended(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "IDLE_TIMEOUT_S", 0.05)
    running.allow_streams()
    async with upgraded(running, exec_path("sleep", "600"), V4) as client:
        await open_streams(client, "error", "stdout", "stderr")
        await client.wait_over()
    for stream in running.streams.opened:
        await stream.is_closed.wait()


async def test_a_client_that_never_hangs_up_is_left(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_spdy, "CLOSE_TIMEOUT_S", 0.05)
    running.allow_streams()
    path = exec_path("true", streams="input=1&output=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        with contextlib.suppress(OSError):
            await client.write(streams["stdin"], bytes(2 * client_stream.MAX_UNREAD_BYTES))
        await client.wait(lambda: client.goaway)
        await client.wait_over()


async def test_a_client_that_says_goodbye_ends_its_program(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("sleep", "600"), V4) as client:
        await open_streams(client, "error", "stdout", "stderr")
        while not running.streams.opened:
            await asyncio.sleep(0)
        await client.send(control(GOAWAY, bytes(8)))
        await running.streams.opened[0].is_closed.wait()


async def test_a_connection_s_reset_ends_its_program(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("yes"), V4) as client:
        await open_streams(client, "error", "stdout", "stderr")
        while not running.streams.opened:
            await asyncio.sleep(0)
        client.writer.transport.abort()
        await running.streams.opened[0].is_closed.wait()


def test_a_bomb_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ParseError, match="more than"):
            HeaderUnpacker().unpack(BOMB)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_headers_go_there_and_back_in_order() -> None:
    packer, unpacker = HeaderPacker(), HeaderUnpacker()
    for headers in ({}, {"streamtype": "error"}, {"a": "", "b": "x" * 30_000}, {"a": "b"}):
        assert unpacker.unpack(packer.pack(headers)) == headers
    with pytest.raises(ParseError):
        unpacker.unpack(packer.pack({"a": "x" * spdy_headers.MAX_BLOCK_BYTES}))


@pytest.mark.parametrize("size", [1, 3, 8, 4096])
def test_frames_in_pieces_of_any_size(size: int) -> None:
    client = SpdyClient(None, None)  # type: ignore[arg-type]
    wire = client.syn_stream({"streamtype": "stdin"})[1] + data(1, b"0123456789", fin=True)
    wire += data(1, b"") + client.syn_stream({"streamtype": "error"}, fin=True)[1]
    reader = FrameReader()
    frames = [
        frame for at in range(0, len(wire), size) for frame in reader.feed(wire[at : at + size])
    ]
    assert frames[0] == SynStream(1, {"streamtype": "stdin"}, False)
    pieces = [frame for frame in frames if isinstance(frame, Data)]
    assert b"".join(piece.data for piece in pieces) == b"0123456789"
    assert [piece.fin for piece in pieces].count(True) == 1
    assert frames[-1] == SynStream(3, {"streamtype": "error"}, True)
