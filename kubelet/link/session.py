"""One supervisor's open connection: frames to it, and its answers to whoever asked."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import itertools

from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.model.frames import Hello, LogCancel, LogData, LogRead, ToSupervisor


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
        self._writer = writer
        self._ids = itertools.count(1)
        self._log_reads: dict[int, asyncio.Future[LogData]] = {}
        self.bundle_stale = asyncio.Event()
        self.bundle_keeper: asyncio.Task[None] | None = None

    async def send(self, frame: ToSupervisor) -> None:
        """Send a frame; a broken connection raises ConnectionError."""
        self._writer.write(codec.frame_bytes(frame))
        await self._writer.drain()

    async def read_log(self, path: str, offset: int, *, wait: bool) -> LogData:
        """Ask for log bytes; see LogRead."""
        request = next(self._ids)
        answer: asyncio.Future[LogData] = asyncio.get_running_loop().create_future()
        self._log_reads[request] = answer
        try:
            await self.send(LogRead(id=request, path=path, offset=offset, wait=wait))
            return await answer
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                self._writer.write(codec.frame_bytes(LogCancel(id=request)))
            raise
        finally:
            self._log_reads.pop(request, None)

    def take_log_data(self, data: LogData) -> None:
        """Hand an answer to whoever waits for it."""
        waiting = self._log_reads.get(data.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(data)

    def close(self) -> None:
        """Hang up; whoever waits for an answer gets ConnectionError."""
        self._writer.close()
        for waiting in self._log_reads.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the supervisor hung up"))


def decode_log_data(data: LogData) -> bytes:
    """The bytes of an answer.

    :raises ParseError: they are not base64.
    """
    try:
        return base64.b64decode(data.data_base64, validate=True)
    except binascii.Error as error:
        raise ParseError(f"log data of frame {data.id}: {error}") from error
