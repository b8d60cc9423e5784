"""Streams through both real ends of the channel: TLS, descriptors, credits."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpk.model.frames import DialOpen, Stop, StreamClosed, StreamError, TerminalSize
from hpk.model.stream_frames import (
    FIRST_CREDIT_BYTES,
    MAX_STREAMS,
    STDERR,
    STDIN,
    STDOUT,
)
from kubelet.link.stream_errors import StreamLostError, StreamRefusedError
from kubelet.link.streams import Stream
from tests.stream_world import World, connected, open_fds, until

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


async def test_who_does_not_read_holds_a_window_and_delays_nobody(world: World) -> None:
    slow, slow_number = await world.open(outputs={STDOUT: endless()})
    busy, _ = await world.open(outputs={STDOUT: endless()})
    quiet_out, quiet_in = os.pipe()
    quiet, _ = await world.open(outputs={STDOUT: quiet_out})
    reading = asyncio.ensure_future(read_for_ever(busy))
    # The slow one's window is full long before the busy one has carried so much.
    while busy._incoming[STDOUT]._receipt._read < 16 * MIB:
        await asyncio.sleep(0)
    os.write(quiet_in, b"still here")
    assert await quiet.read(STDOUT) == b"still here"
    await world.session.send(Stop(grace_period_s=3))
    assert await world.pod.take() == Stop(grace_period_s=3)
    assert len(slow._incoming[STDOUT]._waiting) == FIRST_CREDIT_BYTES
    assert len(await slow.read(STDOUT)) > 0
    slow.close()
    assert await world.pod.take_hang_up() == slow_number
    assert not reading.done()
    reading.cancel()
    os.close(quiet_in)


async def test_a_program_that_does_not_read_makes_its_client_wait_and_no_other(
    world: World,
) -> None:
    in_read, in_write = os.pipe()
    stuck, _ = await world.open(inputs={STDIN: in_write})
    other_read, other_write = os.pipe()
    other, _ = await world.open(inputs={STDIN: other_write})
    writing = asyncio.ensure_future(stuck.write(bytes(16 * MIB)))
    piece = os.urandom(MIB)
    writes = asyncio.ensure_future(other.write(piece * 4))
    with os.fdopen(other_read, "rb") as stdin:
        assert await asyncio.to_thread(stdin.read, 4 * MIB) == piece * 4
    await writes
    assert not writing.done()
    await world.session.send(Stop(grace_period_s=3))
    assert await world.pod.take() == Stop(grace_period_s=3)
    # It reads at last, and all of it arrives.
    with os.fdopen(in_read, "rb") as stdin:
        assert await asyncio.to_thread(stdin.read, 16 * MIB) == bytes(16 * MIB)
    await writing


async def test_input_that_nobody_reads_goes_nowhere_and_holds_up_nobody(world: World) -> None:
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    stream, number = await world.open(outputs={STDOUT: out_read}, inputs={STDIN: in_write})
    os.close(in_read)
    await stream.write(bytes(4 * MIB))
    await stream.write_end()
    os.write(out_write, b"done")
    os.close(out_write)
    world.pod.channel.streams.finish(StreamClosed(number, exit_code=0))
    assert await stream.read(STDOUT) == b"done"
    assert (await stream.closed()).exit_code == 0


async def test_input_that_was_not_asked_for_goes_nowhere(world: World) -> None:
    stream, number = await world.open()
    await stream.write(bytes(2 * MIB))
    world.pod.channel.streams.finish(StreamClosed(number, exit_code=0))
    assert (await stream.closed()).exit_code == 0


async def test_each_direction_of_a_connection_ends_by_itself(world: World) -> None:
    for is_client_first in (True, False):
        ours, theirs = socket.socketpair()
        fd = theirs.detach()
        stream, number = await world.open(outputs={STDOUT: fd}, inputs={STDIN: fd})
        world.pod.channel.streams.finish(StreamClosed(number))
        with ours:
            if is_client_first:
                await stream.write_end()
                assert await asyncio.to_thread(ours.recv, 1) == b""
                ours.sendall(b"an answer to all of it")
                assert await stream.read(STDOUT) == b"an answer to all of it"
                ours.shutdown(socket.SHUT_WR)
            else:
                ours.shutdown(socket.SHUT_WR)
                assert await stream.read(STDOUT) == b""
                await stream.write(b"more")
                assert await asyncio.to_thread(ours.recv, 4) == b"more"
                await stream.write_end()
                assert await asyncio.to_thread(ours.recv, 1) == b""
            assert await stream.read(STDOUT) == b""
            assert (await stream.closed()).error is StreamError.NONE


async def test_a_connection_that_is_reset_is_over_both_ways(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    fd = theirs.detach()
    stream, number = await world.open(outputs={STDOUT: fd}, inputs={STDIN: fd})
    world.pod.channel.streams.finish(StreamClosed(number))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ours.close()
    assert await stream.read(STDOUT) == b""
    await stream.closed()


async def test_a_client_that_goes_is_told_of_once_and_leaves_nothing(world: World) -> None:
    before = open_fds()
    out_read, out_write = os.pipe()
    in_read, in_write = os.pipe()
    stream, number = await world.open(outputs={STDOUT: out_read}, inputs={STDIN: in_write})
    stream.close()
    stream.close()
    assert await world.pod.take_hang_up() == number
    assert await asyncio.to_thread(os.read, in_read, 1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(out_write, b"x")
    world.pod.channel.streams.finish(StreamClosed(number, exit_code=129))
    await until(lambda: not world.session.streams._streams)
    with pytest.raises(StreamLostError):
        await stream.write(b"x")
    for fd in (in_read, out_write):
        os.close(fd)
    assert open_fds() == before
    assert world.pod.hung_up.empty()


async def test_a_client_that_goes_before_its_program_runs(world: World) -> None:
    before = open_fds()
    opening = asyncio.ensure_future(
        world.session.open_stream(lambda number: DialOpen(id=number, port=80))
    )
    frame = await world.pod.take()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await until(lambda: not world.session.streams._streams)
    out_read, out_write = os.pipe()
    world.pod.channel.streams.carry(frame.id, outputs={STDOUT: out_read}, inputs={})
    assert await world.pod.take_hang_up() == frame.id
    with pytest.raises(BrokenPipeError):
        os.write(out_write, b"x")
    os.close(out_write)
    assert open_fds() == before


async def test_what_is_not_begun_says_why(world: World) -> None:
    opening = asyncio.ensure_future(
        world.session.open_stream(lambda number: DialOpen(id=number, port=80))
    )
    frame = await world.pod.take()
    closed = StreamClosed(frame.id, error=StreamError.NOT_STARTED, message="nobody listens")
    world.pod.channel.streams.finish(closed)
    with pytest.raises(StreamRefusedError, match=r"^nobody listens$"):
        await opening


async def test_the_size_of_a_terminal_and_the_end_of_its_input_reach_the_loop(
    world: World,
) -> None:
    master, slave = os.openpty()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told() -> None:
        loop.call_soon_threadsafe(ended.set)

    opening = asyncio.ensure_future(
        world.session.open_stream(lambda number: DialOpen(id=number, port=80))
    )
    frame = await world.pod.take()
    world.pod.channel.streams.carry(
        frame.id,
        outputs={STDOUT: master},
        inputs={STDIN: master},
        on_input_end=told,
    )
    stream = await opening
    await stream.resize(TerminalSize(80, 25))
    resized = await world.pod.take()
    assert (resized.id, resized.size) == (frame.id, TerminalSize(80, 25))
    await stream.write(b"ab\n")
    assert await asyncio.to_thread(os.read, slave, 10) == b"ab\n"
    assert not ended.is_set()
    await stream.write_end()
    await ended.wait()
    # It is still open for what the program says, which leaves it open behind itself.
    os.write(slave, b"bye")
    echo = b""
    while not echo.endswith(b"bye"):
        echo += await stream.read(STDOUT)
    world.pod.channel.streams.finish(StreamClosed(frame.id, exit_code=0), cut=True)
    assert await stream.read(STDOUT) == b""
    assert (await stream.closed()).exit_code == 0
    os.close(slave)


async def test_a_thousand_streams_at_once(world: World) -> None:
    before = open_fds()
    ours: list[socket.socket] = []
    streams = []
    for _ in range(1000):
        mine, theirs = socket.socketpair()
        ours.append(mine)
        fd = theirs.detach()
        stream, number = await world.open(outputs={STDOUT: fd}, inputs={STDIN: fd})
        world.pod.channel.streams.finish(StreamClosed(number))
        streams.append(stream)
    for number, mine in enumerate(ours):
        mine.sendall(b"%d" % number)
    assert await asyncio.gather(*(stream.read(STDOUT) for stream in streams)) == [
        b"%d" % number for number in range(1000)
    ]
    with contextlib.ExitStack() as stack:
        for mine in ours:
            stack.enter_context(mine)
        for stream in streams:
            await stream.write_end()
    await asyncio.gather(*(stream.closed() for stream in streams))
    assert open_fds() == before
    assert world.pod.channel.is_idle


async def test_so_many_streams_and_no_more(world: World) -> None:
    opening = [
        asyncio.ensure_future(
            world.session.open_stream(lambda number: DialOpen(id=number, port=80))
        )
        for _ in range(MAX_STREAMS)
    ]
    for _ in range(MAX_STREAMS):
        await world.pod.take()
    with pytest.raises(StreamRefusedError, match="too many streams"):
        await world.session.open_stream(lambda number: DialOpen(id=number, port=80))
    world.pod.channel.streams.finish_all("the pod has ended")
    refusals = await asyncio.gather(*opening, return_exceptions=True)
    assert {str(refusal) for refusal in refusals} == {"the pod has ended"}


async def test_a_connection_takes_all_its_streams_with_it(world: World) -> None:
    before = open_fds()
    first = world.session
    out_read, out_write = os.pipe()
    stream, number = await world.open(outputs={STDOUT: out_read})
    pending = asyncio.ensure_future(first.open_stream(lambda number: DialOpen(id=number, port=1)))
    late = await world.pod.take()
    os.write(out_write, b"the last words")
    assert await stream.read(STDOUT) == b"the last words"
    world.handler.connected.clear()
    first.close()
    assert await world.pod.take_hang_up() == number
    for lost in (stream.read(STDOUT), stream.write(b"x"), stream.closed(), pending):
        with pytest.raises(StreamLostError):
            await lost
    with pytest.raises(StreamLostError):
        await first.open_stream(lambda number: DialOpen(id=number, port=1))
    with pytest.raises(BrokenPipeError):
        os.write(out_write, b"x")
    os.close(out_write)
    await world.connect()
    # What is carried too late is not taken for a stream of the new connection.
    out_read, out_write = os.pipe()
    world.pod.channel.streams.carry(late.id, outputs={STDOUT: out_read}, inputs={})
    assert await world.pod.take_hang_up() == late.id
    os.close(out_write)
    out_read, out_write = os.pipe()
    stream, new = await world.open(outputs={STDOUT: out_read})
    assert new > late.id
    os.write(out_write, b"hello")
    os.close(out_write)
    assert await stream.read(STDOUT) == b"hello"
    world.pod.channel.streams.finish(StreamClosed(number, exit_code=99))
    world.pod.channel.streams.finish(StreamClosed(new, exit_code=3))
    assert (await stream.closed()).exit_code == 3
    assert open_fds() == before


async def test_what_cannot_be_waited_for_is_not_carried_and_ends_nothing_else(
    world: World, tmp_path: Path
) -> None:
    before = open_fds()
    quiet_out, quiet_in = os.pipe()
    quiet, _ = await world.open(outputs={STDOUT: quiet_out})
    (tmp_path / "file").write_text("text")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(StreamRefusedError):
        await world.open(outputs={STDOUT: fd})
    os.write(quiet_in, b"still here")
    assert await quiet.read(STDOUT) == b"still here"
    os.close(quiet_in)
    quiet.close()
    await until(lambda: open_fds() == before)


def endless() -> int:
    """A descriptor from which zeros come for ever, until it is closed."""
    read, write = os.pipe()

    def fill() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(write, bytes(64 * 1024))
        os.close(write)

    threading.Thread(target=fill).start()
    return read


async def read_for_ever(stream: Stream) -> None:
    """What an eager client does."""
    while await stream.read(STDOUT):
        pass
