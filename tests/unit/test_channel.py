"""The channel as a stranger and as a supervisor meets it: real TLS, real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model import codec
from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError
from hpk.model.frames import (
    LOG_CHUNK_BYTES,
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    BundleReply,
    BundleRequest,
    Hello,
    LogData,
    LogRead,
    Reject,
    Status,
    StatusAck,
    Welcome,
)
from hpk.model.ids import Nonce, PodUid, SlurmJobId
from hpk.model.log_frames import LogBytes, log_frame_bytes, parse_log_frame
from hpk.model.plan import EnvVar
from hpk.model.record import SupervisorRecord
from kubelet.link import channel as channel_module
from kubelet.link import tls_listener
from kubelet.link.channel import ChannelServer
from kubelet.link.tls_listener import Waiters
from tests.certificates import make_certificates
from tests.kubelet_settings import free_port, kubelet_settings
from tests.records import a_record

UID, NONCE, TOKEN = PodUid("uid-1"), Nonce("0123456789abcdef"), "secret-token"


@dataclass
class Kubelet:
    """The handler behind the channel."""

    records: list[SupervisorRecord] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    unwanted: Reject | None = None
    complaints: list[str] = field(default_factory=list)

    async def refusal(self, hello: Hello) -> Reject | None:
        if (hello.uid, hello.nonce, hello.token) != (UID, NONCE, TOKEN):
            return Reject(reason="unknown attempt or wrong token", stop=False)
        return self.unwanted

    def record_arrived(self, record: SupervisorRecord) -> None:
        self.records.append(record)

    def session_changed(self, uid: PodUid, nonce: Nonce, *, is_connected: bool) -> None:
        self.changed.set()

    def not_understood(self, uid: PodUid, why: str) -> None:
        self.complaints.append(why)

    bundles: list[Bundle] = field(default_factory=lambda: [Bundle((), (EnvVar("A", "b"),))])
    again_s: float | None = None

    async def build_bundle(
        self, uid: PodUid, nonce: Nonce, *, protocol: int
    ) -> tuple[Bundle, float | None]:
        bundle = self.bundles[0]
        if len(self.bundles) > 1:
            self.bundles.pop(0)
        return bundle, self.again_s


@dataclass
class Channel:
    server: ChannelServer
    kubelet: Kubelet
    port: int
    ca: Path

    @contextlib.asynccontextmanager
    async def dial(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        context = ssl.create_default_context(cafile=str(self.ca))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="hpk-channel"
        )
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def hello(self, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "protocol": PROTOCOL_VERSION,
            "uid": UID,
            "nonce": NONCE,
            "job_id": SlurmJobId(1),
            "token": TOKEN,
        }
        return codec.frame_bytes(Hello(**(values | changes)))


async def receive(reader: asyncio.StreamReader) -> Any:
    length = int.from_bytes(await reader.readexactly(4), "big")
    return codec.parse_frame(await reader.readexactly(length))


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[Channel]:
    ca, cert, key = make_certificates(tmp_path)
    port = free_port()
    settings = kubelet_settings(
        channel_port=port,
        channel_cert=str(cert),
        channel_key=str(key),
        channel_ca=str(ca),
    )
    kubelet = Kubelet()
    server = ChannelServer(settings=settings, handler=kubelet)
    task = asyncio.ensure_future(server.run())
    made = Channel(server, kubelet, port, ca)
    while True:
        try:
            async with made.dial():
                break
        except ConnectionRefusedError:
            await asyncio.sleep(0)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_supervisor_with_the_token_is_welcome_and_heard(channel: Channel) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        assert await receive(reader) == Welcome(protocol=PROTOCOL_VERSION)
        writer.write(codec.frame_bytes(Status(a_record(seq=5))))
        assert await receive(reader) == StatusAck(seq=5, kept=True)
        assert [r.seq for r in channel.kubelet.records] == [5]
        writer.write(codec.frame_bytes(BundleRequest(id=3)))
        reply = await receive(reader)
        assert isinstance(reply, BundleReply)
        assert (reply.id, reply.bundle.env) == (3, (EnvVar("A", "b"),))


async def test_only_what_changed_is_sent_again(channel: Channel) -> None:
    first, second = (Bundle((), (EnvVar("A", value),)) for value in ("1", "2"))
    channel.kubelet.bundles = [first, first, first, second]
    channel.kubelet.again_s = 0.001
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        assert await receive(reader) == Welcome(protocol=PROTOCOL_VERSION)
        writer.write(codec.frame_bytes(BundleRequest(id=3)))
        assert await receive(reader) == BundleReply(3, first)
        assert await receive(reader) == BundleReply(0, second)


async def test_a_change_of_the_pod_is_sent_at_once(channel: Channel) -> None:
    first, second = (Bundle((), (EnvVar("A", value),)) for value in ("1", "2"))
    channel.kubelet.bundles = [first, second]
    channel.kubelet.again_s = 3600
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        assert await receive(reader) == Welcome(protocol=PROTOCOL_VERSION)
        writer.write(codec.frame_bytes(BundleRequest(id=3)))
        assert await receive(reader) == BundleReply(3, first)
        channel.server.refresh_bundles({PodUid("another")})
        channel.server.refresh_bundles({UID})
        assert await receive(reader) == BundleReply(0, second)


async def test_a_supervisor_that_has_its_bundle_is_kept_fresh_all_the_same(
    channel: Channel,
) -> None:
    channel.kubelet.again_s = 3600
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        assert await receive(reader) == Welcome(protocol=PROTOCOL_VERSION)
        writer.write(codec.frame_bytes(Status(a_record(seq=5))))
        assert await receive(reader) == StatusAck(seq=5, kept=True)
        assert (await receive(reader)).id == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"token": "wrong"},
        {"token": ""},
        {"uid": "uid-2"},
        {"uid": "../uid-1"},
        {"nonce": "../0123"},
        {"nonce": "fedcba9876543210"},
    ],
)
async def test_a_stranger_is_refused(channel: Channel, changes: dict[str, str]) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello(**changes))
        answer = await receive(reader)
        assert isinstance(answer, Reject)
        assert not answer.stop
        assert await reader.read() == b""
    assert channel.server.session(NONCE) is None


async def test_strangers_without_a_handshake_are_sent_away_and_hinder_nobody(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_listener, "_PATIENCE_S", 0.0)
    silent: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            at = ("127.0.0.1", channel.port)
            silent.append(await asyncio.to_thread(socket.create_connection, at, 10))
            stack.enter_context(silent[-1])
        assert await asyncio.to_thread(silent[0].recv, 1) == b""
        async with channel.dial() as (reader, writer):
            writer.write(channel.hello())
            assert isinstance(await receive(reader), Welcome)
        silent[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            silent[-1].recv(1)


async def test_of_those_that_say_nothing_for_long_the_oldest_makes_room(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.server._strangers = Waiters(2)
    monkeypatch.setattr(tls_listener, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(channel_module, "_HELLO_TIMEOUT_S", 600)
    async with (
        channel.dial() as (oldest, _),
        channel.dial() as (newer, _),
        channel.dial() as (reader, writer),
    ):
        writer.write(channel.hello())
        assert isinstance(await receive(reader), Welcome)
        assert await oldest.read() == b""
        assert not newer.at_eof()


async def test_a_storm_does_not_throw_away_what_is_half_done(
    channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.server._strangers = Waiters(1)
    monkeypatch.setattr(tls_listener, "_PATIENCE_S", 600.0)
    async with channel.dial() as (first, writer):
        while channel.server._strangers.has_room():
            await asyncio.sleep(0.01)
        async with channel.dial() as (newest, _):
            assert await newest.read() == b""
        writer.write(channel.hello())
        assert isinstance(await receive(first), Welcome)


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", codec.frame_bytes(BundleRequest(id=1)), None]
)
async def test_a_stranger_cannot_stay_by_not_agreeing_to_the_end_of_tls(
    channel: Channel, first: bytes | None
) -> None:
    context = ssl.create_default_context(cafile=str(channel.ca))

    def outstay() -> bytes:
        with socket.create_connection(("127.0.0.1", channel.port), 10) as plain:
            connection = context.wrap_socket(plain, server_hostname="hpk-channel")
            connection.sendall(first or channel.hello(token="wrong"))
            with socket.socket(fileno=connection.detach()) as silent:
                silent.settimeout(10)
                received = b""
                while piece := silent.recv(65536):
                    received += piece
                return received

    # The session's tickets and a Reject, no more; a recv that times out fails.
    assert len(await asyncio.to_thread(outstay)) > 0


@pytest.mark.parametrize("protocol", range(1, PROTOCOL_VERSION + 1))
async def test_supervisors_of_all_earlier_versions_are_welcome(
    channel: Channel, protocol: int
) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello(protocol=protocol))
        assert await receive(reader) == Welcome(protocol=protocol)
        session = channel.server.session(NONCE)
        assert session is not None
        assert session.protocol == protocol
    assert channel.kubelet.complaints == []


async def test_a_later_supervisor_is_refused_but_not_stopped(channel: Channel) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello(protocol=PROTOCOL_VERSION + 1))
        answer = await receive(reader)
        assert isinstance(answer, Reject)
        assert not answer.stop
        assert f"protocol {PROTOCOL_VERSION + 1}" in answer.reason
        assert await reader.read() == b""
    assert channel.kubelet.complaints == [answer.reason]


async def test_a_later_supervisor_proves_itself_first(channel: Channel) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello(protocol=PROTOCOL_VERSION + 1, token="wrong"))
        answer = await receive(reader)
        assert "wrong token" in answer.reason
    assert channel.kubelet.complaints == []


async def test_a_revoked_attempt_is_told_to_stop(channel: Channel) -> None:
    channel.kubelet.unwanted = Reject(reason="revoked", stop=True)
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        assert await receive(reader) == Reject(reason="revoked", stop=True)


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
        (5).to_bytes(4, "big") + b"[[[[[",
        codec.frame_bytes(BundleRequest(id=1)),
    ],
)
async def test_nonsense_ends_the_connection_and_nothing_else(
    channel: Channel, first: bytes
) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(first)
        assert await reader.read() == b""
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        assert isinstance(await receive(reader), Welcome)


async def test_a_supervisor_cannot_speak_for_another_pod(channel: Channel) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        await receive(reader)
        writer.write(codec.frame_bytes(Status(a_record(uid=PodUid("uid-2")))))
        assert await reader.read() == b""
    assert channel.kubelet.records == []


@given(st.binary(max_size=20))
def test_a_log_frame_is_read_or_refused(payload: bytes) -> None:
    with contextlib.suppress(ParseError):
        parse_log_frame(b"\4" + payload)


def test_a_log_frame_comes_out_as_it_went_in() -> None:
    for frame in (
        LogBytes(2**32 - 1, 2**64 - 1, b"", eof=False),
        LogBytes(0, 0, bytes(LOG_CHUNK_BYTES), eof=True),
    ):
        assert parse_log_frame(log_frame_bytes(frame)[4:]) == frame
    with pytest.raises(ParseError):
        parse_log_frame(log_frame_bytes(LogBytes(1, 0, bytes(LOG_CHUNK_BYTES + 1), eof=True))[4:])


async def test_logs_are_read_through_the_session(channel: Channel) -> None:
    async with channel.dial() as (reader, writer):
        writer.write(channel.hello())
        await receive(reader)
        await channel.kubelet.changed.wait()
        session = channel.server.session(NONCE)
        assert session is not None
        reading = asyncio.ensure_future(session.read_log("logs/c/0.log", 10, wait=True))
        request = await receive(reader)
        assert isinstance(request, LogRead)
        assert (request.path, request.offset, request.wait) == ("logs/c/0.log", 10, True)
        answer = LogBytes(request.id, 10, b"hello", eof=True)
        writer.write(log_frame_bytes(answer))
        assert await reading == answer
        # As supervisors of earlier versions have it, and as all tell what is wrong:
        reading = asyncio.ensure_future(session.read_log("logs/c/0.log", 15, wait=False))
        request = await receive(reader)
        data = base64.b64encode(b"hello").decode()
        writer.write(codec.frame_bytes(LogData(request.id, 15, data, eof=True)))
        assert await reading == LogBytes(request.id, 15, b"hello", eof=True)
        for wrong in (LogData(0, 15, "", eof=True, error="why"), LogData(0, 15, "?", eof=True)):
            reading = asyncio.ensure_future(session.read_log("logs/c/0.log", 15, wait=False))
            request = await receive(reader)
            writer.write(codec.frame_bytes(dataclasses.replace(wrong, id=request.id)))
            with pytest.raises(ParseError, match=r"why|base64"):
                await reading
        unanswered = asyncio.ensure_future(session.read_log("logs/c/0.log", 15, wait=True))
        assert isinstance(await receive(reader), LogRead)
    with pytest.raises(ConnectionError):
        await unanswered
