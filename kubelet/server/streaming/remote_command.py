"""exec and attach: bytes between a client's streams and a program's, and its end as a Status.

Which protocol the client speaks is its codec's (command_spdy, command_websocket).

Source: k8s.io/cri-streaming, pkg/streaming/remotecommand, exec.go and attach.go.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hpk.model.errors import HpkError, ParseError
from hpk.model.frames import StreamClosed, StreamError, TerminalSize
from hpk.model.stream_frames import STDERR, STDOUT
from kubelet.server.streaming.background import all_of, background
from kubelet.server.streaming.client_stream import ClientStream
from kubelet.server.streaming.status import SUCCESS, exit_status, internal_error, status_bytes
from kubelet.server.streams import RemoteStream, StreamLostError, StreamRefusedError

log = logging.getLogger(__name__)

_MAX_SIZE_BYTES = 1024
_MAX_SIDE = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStreams:
    """A client's streams; None for those it does not want.

    :param status_as_text: see status_bytes.
    """

    error: ClientStream
    stdin: ClientStream | None
    stdout: ClientStream | None
    stderr: ClientStream | None
    resize: ClientStream | None
    status_as_text: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCommand:
    """What a client wants to run or join.

    :param begin: opens it.
    :param command: empty for attach, of which no exit code is told.
    """

    begin: Callable[[], Awaitable[RemoteStream]]
    command: tuple[str, ...]

    async def serve(self, client: CommandStreams) -> None:
        """To its end, with the Status on the error stream.

        :raises ClientGoneError: the client hung up; the program is told.
        """
        status = await self._run(client)
        if message := status_bytes(status, as_text=client.status_as_text):
            await client.error.write(message)
        await client.error.write_end()

    async def _run(self, client: CommandStreams) -> dict[str, Any]:
        what = "executing command in" if self.command else "attaching to"
        try:
            remote = await self.begin()
        except (StreamRefusedError, StreamLostError) as error:
            return internal_error(f"error {what} container: {error}")
        try:
            closed = await _carry(client, remote)
        except StreamLostError as error:
            return internal_error(f"error {what} container: {error}")
        finally:
            remote.close()
        if closed.error is not StreamError.NONE:
            return internal_error(f"error {what} container: {closed.message or closed.error}")
        if not self.command or closed.exit_code is None:
            return SUCCESS
        return exit_status(self.command, closed.exit_code)


async def _carry(client: CommandStreams, remote: RemoteStream) -> StreamClosed:
    async with background(_carry_input(client, remote), _carry_sizes(client, remote)):
        await all_of(
            _carry_output(remote, STDOUT, client.stdout),
            _carry_output(remote, STDERR, client.stderr),
        )
        return await remote.closed()


async def _carry_output(remote: RemoteStream, channel: int, to: ClientStream | None) -> None:
    if to is None:
        return
    while data := await remote.read(channel):
        await to.write(data)
    await to.write_end()


async def _carry_input(client: CommandStreams, remote: RemoteStream) -> None:
    if client.stdin is None:
        return
    try:
        while data := await client.stdin.read():
            await remote.write(data)
        await remote.write_end()
    except StreamLostError:
        # The program's end is told by its outputs. What still comes must not block the rest.
        while await client.stdin.read():
            pass


async def _carry_sizes(client: CommandStreams, remote: RemoteStream) -> None:
    if client.resize is None:
        return
    try:
        async for size in _sizes(client.resize):
            await remote.resize(size)
    except HpkError as error:
        log.info("a client's terminal sizes end: %s", error)
    while await client.resize.read():
        pass


async def _sizes(stream: ClientStream) -> AsyncIterator[TerminalSize]:
    """The sizes that a client sends: JSON objects one after the other."""
    decoder = json.JSONDecoder()
    text = ""
    while data := await stream.read():
        text = (text + data.decode("utf-8", "replace")).lstrip()
        while text:
            try:
                value, end = decoder.raw_decode(text)
            except (ValueError, RecursionError):
                if len(text) > _MAX_SIZE_BYTES:
                    raise ParseError("a terminal size that is no JSON") from None
                break
            yield parse_size(value)
            text = text[end:].lstrip()


def parse_size(value: object) -> TerminalSize:
    """A size as clients send it: ``{"Width": 80, "Height": 24}``.

    :raises ParseError: it is none.
    """
    # Go reads names of fields in either case.
    fields = {str(k).lower(): v for k, v in value.items()} if isinstance(value, dict) else {}
    sides = [fields.get(name, 0) for name in ("width", "height")]
    if not all(type(side) is int and 0 <= side <= _MAX_SIDE for side in sides):
        raise ParseError("a terminal size without Width and Height")
    return TerminalSize(*sides)
