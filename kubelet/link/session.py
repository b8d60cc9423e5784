"""One supervisor's open connection: frames to it, and its answers to whoever asked."""

from __future__ import annotations

import asyncio
import base64
import binascii
import itertools
from collections.abc import Callable

from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.model.frames import (
    STREAMS_VERSION,
    Hello,
    LogCancel,
    LogData,
    LogRead,
    ToSupervisor,
)
from hpk.model.log_frames import LogBytes
from kubelet.link.frame_writer import FrameWriter
from kubelet.link.stream_errors import StreamRefusedError
from kubelet.link.streams import SessionStreams, Stream, StreamOpen


class Session:
    """One supervisor's open connection.

    :ivar number: no other session of this kubelet has, or had, the same.
    """

    _numbers = itertools.count(1)

    def __init__(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        self.number = next(Session._numbers)
        self.uid = hello.uid
        self.nonce = hello.nonce
        self.protocol = hello.protocol
        self._frames = FrameWriter(writer)
        self._ids = itertools.count(1)
        self._log_reads: dict[int, asyncio.Future[LogBytes]] = {}
        self.streams = SessionStreams(self._frames, self._ids)
        self.bundle_stale = asyncio.Event()
        self.bundle_keeper: asyncio.Task[None] | None = None

    async def send(self, frame: ToSupervisor) -> None:
        """Send a frame, before all bytes of streams, and wait until the connection has taken it; a
        broken one raises ConnectionError."""
        await self._frames.send(codec.frame_bytes(frame))

    async def keep_sending(self) -> None:
        """Send what is to be sent, until cancelled; a broken connection raises ConnectionError."""
        await self._frames.run()

    async def open_stream(self, make: Callable[[int], StreamOpen]) -> Stream:
        """Open a stream; see SessionStreams.open.

        :raises StreamRefusedError: the supervisor is too old, besides.
        """
        if self.protocol < STREAMS_VERSION:
            raise StreamRefusedError(
                "the pod was started by an older hpk, whose supervisor knows no exec, attach and"
                " port-forward",
                remedy="start the pod again",
            )
        return await self.streams.open(make)

    async def read_log(self, path: str, offset: int, *, wait: bool) -> LogBytes:
        """Ask for log bytes; see LogRead.

        :raises ParseError: it cannot be read; the supervisor says why.
        """
        request = next(self._ids)
        answer: asyncio.Future[LogBytes] = asyncio.get_running_loop().create_future()
        self._log_reads[request] = answer
        try:
            await self.send(LogRead(id=request, path=path, offset=offset, wait=wait))
            return await answer
        except asyncio.CancelledError:
            self._frames.put(codec.frame_bytes(LogCancel(id=request)))
            raise
        finally:
            self._log_reads.pop(request, None)

    def take_log_data(self, data: LogData) -> None:
        """Hand an answer of a supervisor before version 3, or an error, to whoever waits for it."""
        waiting = self._log_reads.get(data.id)
        if waiting is None or waiting.done():
            return
        try:
            if data.error:
                raise ParseError(data.error)  # noqa: TRY301 - the same as what is no base64
            log = base64.b64decode(data.data_base64, validate=True)
            waiting.set_result(LogBytes(data.id, data.offset, log, data.eof))
        except (ParseError, binascii.Error) as error:
            waiting.set_exception(ParseError(f"log of frame {data.id}: {error}"))

    def take_log_bytes(self, frame: LogBytes) -> None:
        """Hand an answer to whoever waits for it."""
        waiting = self._log_reads.get(frame.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    def close(self) -> None:
        """Hang up; whoever waits for an answer gets ConnectionError, all streams are lost."""
        self._frames.close()
        self.streams.lose()
        for waiting in self._log_reads.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the supervisor hung up"))
