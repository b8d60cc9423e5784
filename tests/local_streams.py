"""The far end of streams in this process: programs, a terminal and sockets of this machine.

Fulfils kubelet.server.streams.StreamBackend, so that the codecs can be tried without a supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import termios
from dataclasses import dataclass, field

from hpk.model.frames import StreamClosed, TerminalSize
from hpk.model.stream_frames import FIRST_CREDIT_BYTES, STDOUT
from kubelet.server.streams import RemoteStream, StreamLostError, StreamRefusedError, Streams


class PipeStream:
    """Descriptors' bytes; see RemoteStream."""

    def __init__(
        self,
        outputs: dict[int, asyncio.StreamReader],
        stdin: asyncio.StreamWriter | None,
        process: asyncio.subprocess.Process | None = None,
        terminal: int | None = None,
    ) -> None:
        self.lost = asyncio.Event()
        self.read_bytes = 0
        self.written = bytearray()
        self.is_closed = asyncio.Event()
        self._outputs = outputs
        self._stdin = stdin
        self._process = process
        self._terminal = terminal

    async def read(self, channel: int) -> bytes:
        reader = self._outputs.get(channel)
        if reader is None:
            return b""
        reading = asyncio.create_task(reader.read(64 * 1024))
        losing = asyncio.create_task(self.lost.wait())
        try:
            await asyncio.wait((reading, losing), return_when=asyncio.FIRST_COMPLETED)
            if self.lost.is_set():
                raise StreamLostError("the supervisor hung up")
            try:
                data = reading.result()
            except OSError:  # a terminal's end
                return b""
            self.read_bytes += len(data)
            return data
        finally:
            for task in (reading, losing):
                task.cancel()
            await asyncio.gather(reading, losing, return_exceptions=True)

    async def write(self, data: bytes) -> None:
        if self._stdin is None or self.lost.is_set():
            raise StreamLostError("nobody reads")
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except OSError as error:
            raise StreamLostError(f"nobody reads: {error}") from error

    async def write_end(self) -> None:
        if self._stdin is not None and self._stdin.can_write_eof():
            with contextlib.suppress(OSError):
                self._stdin.write_eof()

    async def resize(self, size: TerminalSize) -> None:
        assert self._terminal is not None
        window = struct.pack("HHHH", size.height, size.width, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, window)

    async def closed(self) -> StreamClosed:
        if self._process is None:
            return StreamClosed(id=1)
        code = await self._process.wait()
        return StreamClosed(id=1, exit_code=code if code >= 0 else 128 - code)

    def close(self) -> None:
        if self.is_closed.is_set():
            return
        self.is_closed.set()
        if self._stdin is not None and not self._stdin.is_closing():
            self._stdin.transport.abort()
        if self._process is not None:
            self._process._transport.close()  # type: ignore[attr-defined]  # its pipes; kills it


@dataclass
class LocalStreams:
    """Programs run here; ports are this machine's.

    :param program: what attach joins.
    """

    program: tuple[str, ...] = ("cat",)
    refusal: str = ""
    opened: list[PipeStream] = field(default_factory=list)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    _files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    async def open_exec(
        self,
        uid: str,
        container: str,
        command: tuple[str, ...],
        streams: Streams,
        size: TerminalSize | None,
    ) -> RemoteStream:
        self.calls.append(("exec", uid, container, command, streams))
        return await self._run(command, streams)

    async def open_attach(
        self, uid: str, container: str, streams: Streams, size: TerminalSize | None
    ) -> RemoteStream:
        self.calls.append(("attach", uid, container, streams))
        return await self._run(self.program, streams)

    async def open_dial(self, uid: str, port: int) -> RemoteStream:
        self.calls.append(("dial", uid, port))
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, limit=FIRST_CREDIT_BYTES // 2
            )
        except OSError as error:
            raise StreamRefusedError(f"failed to connect to localhost:{port}: {error}") from error
        return self._keep(PipeStream({STDOUT: reader}, writer))

    async def _run(self, command: tuple[str, ...], streams: Streams) -> RemoteStream:
        if self.refusal:
            raise StreamRefusedError(self.refusal)
        try:
            if streams.tty:
                return self._keep(await self._run_on_terminal(command))
            pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe if streams.stdin else null,
                stdout=pipe if streams.stdout else null,
                stderr=pipe if streams.stderr else null,
                limit=FIRST_CREDIT_BYTES // 2,
            )
        except FileNotFoundError as error:
            raise StreamRefusedError(
                f'exec: "{command[0]}": executable file not found in $PATH'
            ) from error
        outputs = {
            number: reader
            for number, reader in ((1, process.stdout), (2, process.stderr))
            if reader is not None
        }
        return self._keep(PipeStream(outputs, process.stdin, process))

    async def _run_on_terminal(self, command: tuple[str, ...]) -> PipeStream:
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(master), "rb", 0)
        )
        self._files.callback(transport.close)
        writing, writer_protocol = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()),
            os.fdopen(os.dup(master), "wb", 0),
        )
        self._files.callback(writing.close)
        self._files.callback(os.close, master)
        writer = asyncio.StreamWriter(writing, writer_protocol, None, loop)
        return PipeStream({STDOUT: reader}, writer, process, master)

    def _keep(self, stream: PipeStream) -> PipeStream:
        self.opened.append(stream)
        return stream

    async def stop(self) -> None:
        for stream in self.opened:
            stream.close()
            await stream.closed()
        self._files.close()
