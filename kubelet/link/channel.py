"""The channel's server: supervisors dial in, prove their attempt's token, and stay connected.

Speaks hpk.model.frames over TLS. A connection is trusted only after its Hello named an attempt of
this home and gave that attempt's token; until then it may send one small frame, soon.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Collection
from typing import Protocol

from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.model.frames import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    BundleRequest,
    Hello,
    LogData,
    Reject,
    Status,
    StatusAck,
    StreamClosed,
    StreamOpened,
    Welcome,
)
from hpk.model.ids import Nonce, PodUid
from hpk.model.log_frames import is_log_frame, parse_log_frame
from hpk.model.record import PodPhase, SupervisorRecord
from hpk.model.settings import KubeletSettings
from hpk.model.stream_frames import is_stream_frame, parse_stream_frame
from kubelet.link.bundle_keeper import BundleSource, keep_bundle_fresh
from kubelet.link.session import Session
from kubelet.link.tls_listener import Waiters, listen, serve_tls

log = logging.getLogger(__name__)

_HELLO_TIMEOUT_S = 15
_CALL_TIMEOUT_S = 5
_HELLO_MAX_BYTES = 64 * 1024
_MAX_STRANGERS = 256
_UNSENT_BYTES = 128 * 1024
"""What the kernel may keep of ours: what comes first has to wait behind that."""


class ChannelHandler(BundleSource, Protocol):
    """The kubelet, as the channel sees it."""

    async def refusal(self, hello: Hello) -> Reject | None:
        """Why this supervisor is not welcome, None if it is; from memory, by its token first."""

    def not_understood(self, uid: PodUid, why: str) -> None:
        """A supervisor speaks a later protocol than we do."""

    def record_arrived(self, record: SupervisorRecord) -> None:
        """A supervisor reported."""

    def session_changed(self, uid: PodUid, nonce: Nonce, *, is_connected: bool) -> None:
        """A session began or ended; the attempt has one now, or has none."""


class ChannelServer:
    """Listens for supervisors."""

    def __init__(self, *, settings: KubeletSettings, handler: ChannelHandler) -> None:
        self._settings = settings
        self._handler = handler
        self._sessions: dict[Nonce, Session] = {}
        self._strangers = Waiters(_MAX_STRANGERS)

    @property
    def connected(self) -> int:
        """How many supervisors are."""
        return len(self._sessions)

    def session(self, nonce: Nonce) -> Session | None:
        """The open session of an attempt."""
        return self._sessions.get(nonce)

    def refresh_bundles(self, uids: Collection[PodUid]) -> None:
        """Something that these pods' bundles show has changed."""
        for session in self._sessions.values():
            if session.uid in uids:
                session.bundle_stale.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        await serve_tls(
            self._make_protocol,
            listen(self._settings.address, self._settings.channel_port),
            self._tls(),
            most_handshakes=_MAX_STRANGERS,
            handshake_timeout_s=_HELLO_TIMEOUT_S,
        )

    async def call(self, address: str, port: int) -> None:
        """Dial a supervisor that cannot dial us; from its Hello on it is as if it had.

        :raises OSError: nobody answers there, or not with TLS.
        """
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            async with asyncio.timeout(_CALL_TIMEOUT_S):
                await loop.sock_connect(connection, (address, port))
        except BaseException:
            connection.close()
            raise
        # In TLS we are the server all the same: who we are is what our certificate says.
        await loop.connect_accepted_socket(
            self._make_protocol,
            connection,
            ssl=self._tls(),
            ssl_handshake_timeout=_HELLO_TIMEOUT_S,
        )

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._settings.channel_cert, self._settings.channel_key)
        return context

    def _make_protocol(self) -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=MAX_FRAME_BYTES)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _notice_silence(writer.get_extra_info("socket"))
        session = None
        try:
            session = await self._welcome(reader, writer)
            if session is not None:
                await self._serve(session, reader)
        except (ParseError, OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            log.info("channel connection ended: %s", error)
        except Exception:
            log.exception("channel connection failed")
        finally:
            if session is None:
                # A stranger need not be told that TLS ends, and could take its time to agree.
                writer.transport.abort()
            writer.close()

    async def _welcome(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Session | None:
        if not self._strangers.enter(writer, writer.transport.abort):
            return None  # it comes again, later each time
        try:
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                hello = codec.parse_frame(await _read_payload(reader, _HELLO_MAX_BYTES))
                if not isinstance(hello, Hello):
                    raise ParseError("the first frame is no Hello")
                refusal = await self._refusal(hello)
        finally:
            self._strangers.leave(writer)
        if refusal is not None:
            log.info("supervisor refused uid=%r reason=%s", hello.uid, refusal.reason)
            if refusal == _refuse_later_protocol(hello):
                self._handler.not_understood(hello.uid, refusal.reason)
            writer.write(codec.frame_bytes(refusal))
            await writer.drain()
            return None
        writer.write(codec.frame_bytes(Welcome(protocol=hello.protocol)))
        return Session(hello, writer)

    async def _refusal(self, hello: Hello) -> Reject | None:
        return await self._handler.refusal(hello) or _refuse_later_protocol(hello)

    async def _serve(self, session: Session, reader: asyncio.StreamReader) -> None:
        older = self._sessions.get(session.nonce)
        if older is not None:
            older.close()
        self._sessions[session.nonce] = session
        self._handler.session_changed(session.uid, session.nonce, is_connected=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(session.keep_sending())
                while True:
                    payload = await _read_payload(reader, MAX_FRAME_BYTES)
                    if is_log_frame(payload):
                        session.take_log_bytes(parse_log_frame(payload))
                    elif is_stream_frame(payload):
                        session.streams.take(parse_stream_frame(payload))
                    else:
                        await self._handle(session, codec.parse_frame(payload), tasks)
        except* (OSError, asyncio.IncompleteReadError):
            log.debug("supervisor hung up uid=%s", session.uid)
        except* ParseError as errors:
            log.warning("supervisor sent nonsense uid=%s: %s", session.uid, errors.exceptions[0])
        finally:
            session.close()
            if self._sessions.get(session.nonce) is session:
                del self._sessions[session.nonce]
                self._handler.session_changed(session.uid, session.nonce, is_connected=False)

    async def _handle(self, session: Session, frame: object, tasks: asyncio.TaskGroup) -> None:
        if isinstance(frame, Status):
            record = frame.record
            if (record.uid, record.nonce) != (session.uid, session.nonce):
                raise ParseError(f"record of {record.uid} came from {session.uid}")
            self._handler.record_arrived(record)
            await session.send(
                StatusAck(seq=record.seq, kept=record.phase is not PodPhase.FINISHED)
            )
            if session.bundle_keeper is None and record.phase is not PodPhase.FINISHED:
                self._keep_bundle(session, 0, tasks)
        elif isinstance(frame, LogData):
            session.take_log_data(frame)
        elif isinstance(frame, (StreamOpened, StreamClosed)):
            session.streams.take_word(frame)
        elif isinstance(frame, BundleRequest):
            self._keep_bundle(session, frame.id, tasks)

    def _keep_bundle(self, session: Session, request: int, tasks: asyncio.TaskGroup) -> None:
        if session.bundle_keeper is not None:
            session.bundle_keeper.cancel()
        keeper = keep_bundle_fresh(session, request, self._handler)
        session.bundle_keeper = tasks.create_task(keeper)


def _refuse_later_protocol(hello: Hello) -> Reject | None:
    if hello.protocol <= PROTOCOL_VERSION:
        return None
    return Reject(
        reason=f"the pod's supervisor speaks protocol {hello.protocol}, this kubelet"
        f" {PROTOCOL_VERSION} at most: the pod goes on, but its ConfigMaps, Secrets and tokens"
        " are not renewed until a newer hpk runs",
        stop=False,
    )


def _notice_silence(connection: socket.socket) -> None:
    """Let the kernel end the connection soon after the other host has gone without a word, and keep
    little that is not sent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


async def _read_payload(reader: asyncio.StreamReader, limit: int) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > limit:
        raise ParseError(f"frame of {length} bytes, at most {limit} are allowed")
    return await reader.readexactly(length)
