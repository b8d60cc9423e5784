"""port-forward by SPDY/3.1: for each connection that is forwarded a data and an error stream.

Many are forwarded at once, and one's failure is told on its own error stream.

Source: k8s.io/cri-streaming, pkg/streaming/portforward, httpstream.go.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hpk.model.frames import StreamError
from hpk.model.stream_frames import STDOUT
from kubelet.server.streaming.background import all_of, first_of
from kubelet.server.streaming.client_stream import ClientGoneError, ClientStream
from kubelet.server.streaming.spdy import SpdyConnection, SpdyStream
from kubelet.server.streaming.wire import Wire
from kubelet.server.streams import RemoteStream, StreamLostError, StreamRefusedError

log = logging.getLogger(__name__)

PROTOCOLS = ("portforward.k8s.io",)
STREAMS_TIMEOUT_S = 30.0
_MOST_CHARACTERS = 4096
_PORT = re.compile(r"[0-9]{1,10}")
_TYPES = ("data", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whose ports they are.

    :param dial: connects to one.
    """

    pod: str
    uid: str
    dial: Callable[[int], Awaitable[RemoteStream]]


async def forward(target: Target, port: int, data: ClientStream, error: ClientStream) -> str:
    """One connection, to its end.

    :returns: what went wrong, "" if nothing did; it is for the error stream.
    :raises ClientGoneError: the client hung up.
    """
    try:
        remote = await target.dial(port)
        try:
            message = await _carry(data, remote)
        finally:
            remote.close()
    except (StreamRefusedError, StreamLostError) as refused:
        message = str(refused)
    if not message:
        return ""
    log.info("cannot forward a port: %s", message, extra={"uid": target.uid, "port": port})
    return (f"error forwarding port {port} to pod {target.pod}, uid {target.uid}: {message}")[
        :_MOST_CHARACTERS
    ]


async def _carry(data: ClientStream, remote: RemoteStream) -> str:
    """Both ways; each may end before the other. The last word's message, "" after a proper end."""

    async def upwards() -> None:
        try:
            while piece := await data.read():
                await remote.write(piece)
            await remote.write_end()
        except StreamLostError:
            # Nobody listens to the rest; whether that was a proper end, the other way tells.
            while await data.read():
                pass

    async def downwards() -> None:
        while piece := await remote.read(STDOUT):
            await data.write(piece)
        await data.write_end()

    message = ""

    async def both() -> None:
        nonlocal message
        await all_of(upwards(), downwards())
        closed = await remote.closed()
        if closed.error is not StreamError.NONE:
            message = closed.message or str(closed.error)

    await first_of(both(), data.wait_reset())
    return message


@dataclass(slots=True)
class _Pair:
    """The two streams of one connection."""

    streams: dict[str, SpdyStream] = field(default_factory=dict)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class PortForward:
    """All that one client forwards over one SPDY connection."""

    def __init__(self, wire: Wire, target: Target) -> None:
        self._connection = SpdyConnection(wire, self._on_stream)
        self._target = target
        self._pairs: dict[str, _Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """To the connection's end.

        :raises ClientGoneError: always, as SpdyConnection.serve does.
        """
        try:
            await self._connection.serve()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_stream(self, stream: SpdyStream) -> bool:
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in _TYPES or not _PORT.fullmatch(port) or not 0 < int(port) <= 65535:
            return False
        request = _request_of(stream, kind)
        pair = self._pairs.get(request)
        if pair is None:
            pair = self._pairs[request] = _Pair()
            task = asyncio.create_task(self._guarded(request, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if kind in pair.streams:
            log.info("a client opens the %s stream of a connection twice", kind)
            return False
        pair.streams[kind] = stream
        if len(pair.streams) == len(_TYPES):
            # From now on its number may be used for another connection.
            del self._pairs[request]
            pair.complete.set()
        return True

    async def _guarded(self, request: str, pair: _Pair) -> None:
        """One connection's failure is its own."""
        try:
            await self._serve_pair(request, pair)
        except ClientGoneError:
            return  # the connection's own task tells it
        except Exception:
            log.exception("port-forward failed")
            for stream in pair.streams.values():
                await stream.reset()

    async def _serve_pair(self, request: str, pair: _Pair) -> None:
        try:
            async with asyncio.timeout(STREAMS_TIMEOUT_S):
                await pair.complete.wait()
        except TimeoutError:
            del self._pairs[request]
            if error := pair.streams.get("error"):
                await error.write(b"timed out waiting for streams")
            for stream in pair.streams.values():
                await stream.reset()
            return
        data, error = pair.streams["data"], pair.streams["error"]
        port = int(data.headers["port"])
        if message := await forward(self._target, port, data, error):
            await error.write(message.encode())
            await data.reset()
            await error.reset()
            return
        await data.write_end()
        await error.write_end()
        for stream in (data, error):
            stream.inbox.drop()
            self._connection.forget_if_over(stream)


def _request_of(stream: SpdyStream, kind: str) -> str:
    """What joins the two streams of a connection."""
    if request := stream.headers.get("requestid", ""):
        return request
    # Old clients number nothing and open the error stream first.
    return f"#{stream.number if kind == 'error' else stream.number - 2}"
