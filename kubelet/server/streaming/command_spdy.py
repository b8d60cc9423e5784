"""exec and attach by SPDY/3.1: a stream each for errors, input, outputs and terminal sizes.

Source: k8s.io/cri-streaming, pkg/streaming/remotecommand, httpstream.go.
"""

from __future__ import annotations

import asyncio
import logging

from kubelet.server.streaming.background import background, while_running
from kubelet.server.streaming.client_stream import ClientGoneError
from kubelet.server.streaming.remote_command import CommandStreams, RemoteCommand
from kubelet.server.streaming.spdy import SpdyConnection, SpdyStream
from kubelet.server.streaming.wire import Wire
from kubelet.server.streams import Streams

log = logging.getLogger(__name__)

PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
STREAMS_TIMEOUT_S = 30.0  # upstream's DefaultStreamCreationTimeout
CLOSE_TIMEOUT_S = 10.0
"""How long a client may take to hang up once all was said."""


def expected_streams(wanted: Streams, protocol: str) -> frozenset[str]:
    """The types of the streams that a client opens."""
    expected = {"error"}
    for name in ("stdin", "stdout", "stderr"):
        if getattr(wanted, name):
            expected.add(name)
    if wanted.tty and protocol in PROTOCOLS[:2]:
        expected.add("resize")
    return frozenset(expected)


async def serve_command(wire: Wire, protocol: str, wanted: Streams, command: RemoteCommand) -> None:
    """One connection, to its end.

    :raises ClientGoneError: the client hung up before the end, or opened no streams.
    """
    expected = expected_streams(wanted, protocol)
    streams: dict[str, SpdyStream] = {}
    complete = asyncio.Event()

    def on_stream(stream: SpdyStream) -> bool:
        kind = stream.headers.get("streamtype", "")
        if kind not in expected or kind in streams:
            return False
        streams[kind] = stream
        if len(streams) == len(expected):
            complete.set()
        return True

    async def work() -> None:
        try:
            async with asyncio.timeout(STREAMS_TIMEOUT_S):
                await complete.wait()
        except TimeoutError as error:
            raise ClientGoneError("timed out waiting for client to create streams") from error
        await command.serve(
            CommandStreams(
                error=streams["error"],
                stdin=streams.get("stdin"),
                stdout=streams.get("stdout"),
                stderr=streams.get("stderr"),
                resize=streams.get("resize"),
                status_as_text=protocol != PROTOCOLS[0],
            )
        )

    connection = SpdyConnection(wire, on_stream)
    async with background(connection.serve()) as (serving,):
        await while_running(serving, work())
        for stream in streams.values():
            stream.inbox.drop()  # nobody reads it any more, and it must not keep us from its end
        await _part(connection, serving)


async def _part(connection: SpdyConnection, serving: asyncio.Task[None]) -> None:
    try:
        await connection.go_away()
        # A connection closed with bytes unread loses what is still under way to the client.
        await asyncio.wait((serving,), timeout=CLOSE_TIMEOUT_S)
    except ClientGoneError:
        return
