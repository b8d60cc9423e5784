"""Peers that lie about streams: what they cost is their own connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpk.model import codec
from hpk.model.frames import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    AttachOpen,
    DialOpen,
    Hello,
    LogRead,
    Stop,
    StreamClose,
    StreamClosed,
    StreamOpened,
    StreamResize,
    TerminalSize,
    Welcome,
)
from hpk.model.ids import Nonce, SlurmJobId
from hpk.model.stream_frames import (
    FIRST_CREDIT_BYTES,
    MAX_DATA_BYTES,
    STDERR,
    STDIN,
    STDOUT,
    StreamCredit,
    StreamData,
    StreamEnd,
    is_stream_frame,
    parse_stream_frame,
    stream_frame_bytes,
)
from kubelet.link.channel import ChannelServer
from kubelet.link.stream_errors import StreamLostError, StreamRefusedError
from tests.stream_world import UID, PodEnd, kubelet_end, kubelet_files, until, write_pod

OTHER = Nonce("f" * 16)


async def receive(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(4), "big")
    payload = await reader.readexactly(length)
    return parse_stream_frame(payload) if is_stream_frame(payload) else codec.parse_frame(payload)


async def until_its_end(reader: asyncio.StreamReader) -> None:
    """The other side hangs up; what it has said before may come first."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass


@dataclass
class Supervisor:
    """One that says what the test wants."""

    server: ChannelServer
    nonce: Nonce
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def opening(self) -> tuple[asyncio.Task[Any], int]:
        """A stream that is asked of it, and its id."""
        session = self.server.session(self.nonce)
        assert session is not None
        task = asyncio.ensure_future(
            session.open_stream(lambda number: DialOpen(id=number, port=80))
        )
        frame = await receive(self.reader)
        assert isinstance(frame, DialOpen)
        return task, frame.id

    def say(self, *frames: Any) -> None:
        for frame in frames:
            is_stream = isinstance(frame, (StreamData, StreamEnd, StreamCredit))
            self.writer.write(
                frame
                if isinstance(frame, bytes)
                else stream_frame_bytes(frame)
                if is_stream
                else codec.frame_bytes(frame)
            )


@contextlib.asynccontextmanager
async def dial(
    server: ChannelServer, port: int, ca: Path, nonce: Nonce, protocol: int = PROTOCOL_VERSION
) -> AsyncIterator[Supervisor]:
    context = ssl.create_default_context(cafile=str(ca))
    # A short way, so that what waits does so in the kubelet.
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    while True:
        try:
            await asyncio.to_thread(plain.connect, ("127.0.0.1", port))
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(
        sock=plain, ssl=context, server_hostname="hpk-channel", limit=65536
    )
    try:
        hello = Hello(protocol=protocol, uid=UID, nonce=nonce, job_id=SlurmJobId(1), token="t")
        writer.write(codec.frame_bytes(hello))
        assert await receive(reader) == Welcome(protocol=protocol)
        await until(lambda: server.session(nonce) is not None)
        yield Supervisor(server, nonce, reader, writer)
    finally:
        writer.transport.abort()
        await until(lambda: server.session(nonce) is None)


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[tuple[ChannelServer, int, Path]]:
    async with kubelet_end(tmp_path) as (server, _, port, ca):
        yield server, port, ca


def a_frame(kind: int, stream: int, channel: int = STDOUT, size: int = 0, cut: int = 0) -> bytes:
    """A binary frame as nobody should write it."""
    head = bytes([kind]) + stream.to_bytes(4, "big") + bytes([channel]) + bytes(8)
    payload = (head + bytes(size))[: -cut or None]
    return len(payload).to_bytes(4, "big") + payload


LIES: dict[str, Any] = {
    "another's stream": lambda n: [StreamData(n + 1, STDOUT, 0, b"x")],
    "a stream that never was": lambda n: [StreamClosed(n + 7)],
    "opened twice": lambda n: [StreamOpened(n)],
    "closed twice": lambda n: [StreamClosed(n), StreamClosed(n)],
    "bytes after the last word": lambda n: [StreamClosed(n), StreamData(n, STDOUT, 0, b"x")],
    "bytes from elsewhere": lambda n: [StreamData(n, STDOUT, 5, b"x")],
    "bytes again": lambda n: [StreamData(n, STDOUT, 0, b"x"), StreamData(n, STDOUT, 0, b"x")],
    "bytes after the end": lambda n: [StreamEnd(n, STDERR, 0), StreamData(n, STDERR, 0, b"x")],
    "an end elsewhere": lambda n: [StreamEnd(n, STDERR, 9)],
    "two ends": lambda n: [StreamEnd(n, STDERR, 0), StreamEnd(n, STDERR, 0)],
    "bytes for the program": lambda n: [StreamData(n, STDIN, 0, b"x")],
    "credit for its own": lambda n: [StreamCredit(n, STDOUT, 1 << 40)],
    "more than is allowed": lambda n: [
        StreamData(n, STDOUT, at, bytes(MAX_DATA_BYTES))
        for at in range(0, FIRST_CREDIT_BYTES + MAX_DATA_BYTES, MAX_DATA_BYTES)
    ],
    "a channel that is none": lambda n: [a_frame(1, n, channel=9, size=1)],
    "a kind that is none": lambda n: [a_frame(7, n)],
    "no bytes at all": lambda n: [a_frame(1, n)],
    "too many bytes": lambda n: [a_frame(1, n, size=MAX_DATA_BYTES + 1)],
    "credit with bytes": lambda n: [a_frame(3, n, channel=STDIN, size=1)],
    "a frame that is cut": lambda n: [a_frame(2, n, cut=3)],
    "an empty frame": lambda n: [bytes(4)],
    "a frame of any length": lambda n: [(MAX_FRAME_BYTES + 1).to_bytes(4, "big")],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_supervisor_that_lies_loses_its_connection_and_no_other_does(
    kubelet: tuple[ChannelServer, int, Path], lie: str
) -> None:
    async with dial(*kubelet, OTHER) as honest:
        other, other_id = await honest.opening()
        honest.say(StreamOpened(other_id))
        async with dial(*kubelet, Nonce("0" * 16)) as liar:
            task, number = await liar.opening()
            liar.say(StreamOpened(number))
            stream = await task
            liar.say(*LIES[lie](number))
            await until_its_end(liar.reader)
            with pytest.raises(StreamLostError):
                await stream.write(b"x")
        honest.say(StreamData(other_id, STDOUT, 0, b"unharmed"))
        assert await (await other).read(STDOUT) == b"unharmed"


async def test_a_stream_is_not_used_before_it_is_open(
    kubelet: tuple[ChannelServer, int, Path],
) -> None:
    async with dial(*kubelet, OTHER) as liar:
        task, number = await liar.opening()
        liar.say(StreamData(number, STDOUT, 0, b"x"))
        await until_its_end(liar.reader)
        with pytest.raises(StreamLostError):
            await task


async def test_a_connection_that_is_cut_within_a_frame(
    kubelet: tuple[ChannelServer, int, Path],
) -> None:
    async with dial(*kubelet, OTHER) as supervisor:
        task, number = await supervisor.opening()
        supervisor.say(StreamOpened(number), StreamData(number, STDOUT, 0, b"a word"))
        stream = await task
        assert await stream.read(STDOUT) == b"a word"
        supervisor.say(stream_frame_bytes(StreamData(number, STDOUT, 6, b"another"))[:-2])
        supervisor.writer.close()
        with pytest.raises(StreamLostError):
            await stream.read(STDOUT)


@pytest.mark.parametrize("protocol", range(1, 3))
async def test_an_older_supervisor_is_not_asked(
    kubelet: tuple[ChannelServer, int, Path], protocol: int
) -> None:
    async with dial(*kubelet, OTHER, protocol=protocol):
        session = kubelet[0].session(OTHER)
        assert session is not None
        with pytest.raises(StreamRefusedError, match="older hpk"):
            await session.open_stream(lambda number: DialOpen(id=number, port=80))


async def test_what_comes_first_does_not_wait_behind_bytes(
    kubelet: tuple[ChannelServer, int, Path],
) -> None:
    """A supervisor that takes nothing for a while, with megabytes for it to come."""
    async with dial(*kubelet, OTHER) as supervisor:
        task, number = await supervisor.opening()
        supervisor.say(StreamOpened(number), StreamCredit(number, STDIN, 1 << 40))
        stream = await task
        writing = asyncio.ensure_future(stream.write(bytes(64 << 20)))
        # Until it waits: the way is full, and so is what may wait in front of it.
        position = -1
        while (now := stream._outgoing._sent) != position or not now:
            position = now
            await asyncio.sleep(0.2)
        session = kubelet[0].session(OTHER)
        assert session is not None
        stop = asyncio.ensure_future(session.send(Stop(grace_period_s=1)))
        before = 0
        while True:
            frame = await receive(supervisor.reader)
            if isinstance(frame, Stop):
                break
            before += len(frame.data)
        assert before <= position + MAX_DATA_BYTES
        assert position < 4 << 20
        await stop
        writing.cancel()


async def test_a_client_that_has_gone_is_not_sent_to(
    kubelet: tuple[ChannelServer, int, Path],
) -> None:
    """What crosses its going is no lie, and costs nothing."""
    async with dial(*kubelet, OTHER) as supervisor:
        task, number = await supervisor.opening()
        supervisor.say(StreamOpened(number))
        stream = await task
        stream.close()
        supervisor.say(StreamData(number, STDOUT, 0, bytes(MAX_DATA_BYTES)))
        assert await receive(supervisor.reader) == StreamClose(number)
        supervisor.say(StreamClosed(number))
        session = kubelet[0].session(OTHER)
        assert session is not None
        await until(lambda: not session.streams._streams)


@dataclass
class Kubelet:
    """One that says what the test wants, to a real supervisor's channel."""

    pod: PodEnd
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@contextlib.asynccontextmanager
async def lying_kubelet(directory: Path) -> AsyncIterator[asyncio.Queue[Kubelet]]:
    """Its connections, each after the supervisor's Hello and our Welcome."""
    arrived: asyncio.Queue[Kubelet] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []
    cert, key, ca, port = kubelet_files(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    write_pod(directory, ca)
    pod = PodEnd(directory)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        assert isinstance(await receive(reader), Hello)
        writer.write(codec.frame_bytes(Welcome(protocol=PROTOCOL_VERSION)))
        await arrived.put(Kubelet(pod, reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", port, ssl=context)
    async with server:
        pod.channel.start()
        yield arrived
        await asyncio.to_thread(pod.channel.close, 60.0)
        for writer in writers:
            writer.transport.abort()


KUBELETS_LIES: dict[str, Any] = {
    "an id again": [DialOpen(5, 80)],
    "an id that is too low": [DialOpen(4, 80)],
    "an id that is none": [DialOpen(0, 80)],
    "an id that is too long": [AttachOpen(1 << 32, "main", True, True, True)],
    "bytes for what was never opened": [StreamData(6, STDIN, 0, b"x")],
    "a size of what was never opened": [StreamResize(6, TerminalSize(1, 1))],
    "bytes from the program": [StreamData(5, STDOUT, 0, b"x")],
    "bytes out of turn": [StreamData(5, STDIN, 1, b"x")],
    "an end out of turn": [StreamEnd(5, STDIN, 1)],
    "bytes after the end": [StreamEnd(5, STDIN, 0), StreamData(5, STDIN, 0, b"x")],
    "more than is allowed": [
        StreamData(5, STDIN, at, bytes(MAX_DATA_BYTES))
        for at in range(0, FIRST_CREDIT_BYTES + (1 << 20), MAX_DATA_BYTES)
    ],
    "a frame that is none": [a_frame(9, 5)],
}


@pytest.mark.parametrize("lie", KUBELETS_LIES)
async def test_a_kubelet_that_lies_is_dialled_anew(tmp_path: Path, lie: str) -> None:
    async with lying_kubelet(tmp_path) as arrived:
        kubelet = await arrived.get()
        pod = kubelet.pod
        assert isinstance(await pod.take(), Welcome)
        kubelet.writer.write(codec.frame_bytes(DialOpen(5, 80)))
        opened = await pod.take()
        in_read, in_write = os.pipe()
        pod.channel.streams.carry(opened.id, outputs={}, inputs={STDIN: in_write})
        assert await receive(kubelet.reader) == StreamOpened(5)
        for frame in KUBELETS_LIES[lie]:
            kubelet.writer.write(
                frame
                if isinstance(frame, bytes)
                else stream_frame_bytes(frame)
                if isinstance(frame, (StreamData, StreamEnd))
                else codec.frame_bytes(frame)
            )
        await until_its_end(kubelet.reader)
        assert await pod.take_hang_up() == opened.id
        # The pod goes on, the next connection is as good as new.
        again = await arrived.get()
        while not isinstance(await pod.take(), Welcome):
            pass
        again.writer.write(codec.frame_bytes(DialOpen(1, 80)))
        assert (await pod.take()).port == 80
        with os.fdopen(in_read, "rb") as stdin:
            await asyncio.to_thread(stdin.read)  # what was allowed, and then its end


async def test_words_that_cross_the_last_one_are_no_lies(tmp_path: Path) -> None:
    async with lying_kubelet(tmp_path) as arrived:
        kubelet = await arrived.get()
        assert isinstance(await kubelet.pod.take(), Welcome)
        kubelet.writer.write(codec.frame_bytes(DialOpen(5, 80)))
        opened = await kubelet.pod.take()
        kubelet.pod.channel.streams.finish(StreamClosed(opened.id, exit_code=1))
        assert await receive(kubelet.reader) == StreamClosed(5, exit_code=1)
        for frame in (StreamData(5, STDIN, 0, b"x"), StreamCredit(5, STDOUT, 1 << 20)):
            kubelet.writer.write(stream_frame_bytes(frame))
        kubelet.writer.write(codec.frame_bytes(StreamClose(5)))
        kubelet.writer.write(codec.frame_bytes(StreamResize(5, TerminalSize(1, 1))))
        kubelet.writer.write(codec.frame_bytes(LogRead(9, "no/such", 0, False)))
        answer = await receive(kubelet.reader)
        assert (answer.id, answer.eof) == (9, True)
