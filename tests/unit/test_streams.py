"""Streams through both real ends of the channel: TLS, descriptors, credits."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpk.model.frames import StreamClosed
from hpk.model.stream_frames import STDERR, STDIN, STDOUT
from tests.stream_world import World, connected

MIB = 1024 * 1024


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with connected(tmp_path) as made:
        yield made


async def test_a_program_is_written_to_and_read_to_its_end(world: World) -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    stream, number = await world.open(
        outputs={STDOUT: out_read, STDERR: err_read}, inputs={STDIN: in_write}
    )
    await stream.write(b"hello")
    await stream.write_end()
    with os.fdopen(in_read, "rb") as stdin:
        assert await asyncio.to_thread(stdin.read) == b"hello"
    os.write(out_write, b"out")
    os.write(err_write, b"err")
    assert await stream.read(STDOUT) == b"out"
    assert await stream.read(STDERR) == b"err"
    world.pod.channel.streams.finish(StreamClosed(number, exit_code=17))
    os.close(err_write)
    assert await stream.read(STDERR) == b""
    os.write(out_write, b"the last")
    os.close(out_write)
    assert await stream.read(STDOUT) == b"the last"
    assert await stream.read(STDOUT) == b""
    assert (await stream.closed()).exit_code == 17
    stream.close()
    assert world.pod.hung_up.empty()


async def test_64_mib_go_each_way_at_once(world: World) -> None:
    ours, theirs = socket.socketpair()
    stream, number = await world.open(
        outputs={STDOUT: theirs.fileno()}, inputs={STDIN: theirs.fileno()}
    )
    theirs.detach()
    world.pod.channel.streams.finish(StreamClosed(number))
    piece = os.urandom(MIB)

    def serve() -> str:
        """Send 64 MiB of our own, then give what came; what comes waits meanwhile."""
        digest = hashlib.sha256()
        with ours, ours.makefile("rb") as reader:
            for _ in range(64):
                ours.sendall(piece)
            ours.shutdown(socket.SHUT_WR)
            while data := reader.read(MIB):
                digest.update(data)
        return digest.hexdigest()

    async def write() -> None:
        for _ in range(64):
            await stream.write(piece)
        await stream.write_end()

    async def read() -> str:
        digest = hashlib.sha256()
        while data := await stream.read(STDOUT):
            digest.update(data)
        return digest.hexdigest()

    whole = hashlib.sha256(piece * 64).hexdigest()
    served, _, came = await asyncio.gather(asyncio.to_thread(serve), write(), read())
    assert served == came == whole
    assert await stream.closed() == StreamClosed(stream._number)
