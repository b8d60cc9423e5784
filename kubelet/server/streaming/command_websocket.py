"""exec and attach by WebSocket: channels 0 to 4 for input, outputs, errors and terminal sizes.

Source: k8s.io/cri-streaming, pkg/streaming/remotecommand/websocket.go; k8s.io/apiserver,
pkg/util/proxy/websocket.go (the fifth protocol).
"""

from __future__ import annotations

from kubelet.server.streaming.background import background, while_running
from kubelet.server.streaming.channels import Channels, Protocol
from kubelet.server.streaming.remote_command import CommandStreams, RemoteCommand
from kubelet.server.streaming.websocket import WebSocket
from kubelet.server.streaming.wire import Wire
from kubelet.server.streams import Streams

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)

PROTOCOLS = {
    "v5.channel.k8s.io": Protocol(has_close=True),
    "v4.channel.k8s.io": Protocol(),
    "v4.base64.channel.k8s.io": Protocol(is_base64=True),
    "channel.k8s.io": Protocol(status_as_text=True),
    "base64.channel.k8s.io": Protocol(is_base64=True, status_as_text=True),
    "": Protocol(status_as_text=True),
}
"""By their names; "" where the client asks for none."""


async def serve_command(
    wire: Wire, protocol: Protocol, wanted: Streams, command: RemoteCommand
) -> None:
    """One connection, to its end.

    :raises ClientGoneError: the client hung up before the end.
    """
    socket = WebSocket(wire)
    readable = {_RESIZE, _STDIN} if wanted.stdin else {_RESIZE}
    channels = Channels(socket, protocol, 5, readable)
    first = _STDOUT if wanted.stdout else _STDERR if wanted.stderr else _ERROR
    streams = CommandStreams(
        error=channels[_ERROR],
        stdin=channels[_STDIN] if wanted.stdin else None,
        stdout=channels[_STDOUT] if wanted.stdout else None,
        stderr=channels[_STDERR] if wanted.stderr else None,
        resize=channels[_RESIZE] if wanted.tty else None,
        status_as_text=protocol.status_as_text,
    )
    if not wanted.tty:
        channels[_RESIZE].inbox.drop()
    try:
        async with background(channels.serve()) as (serving,):
            await channels[first].write(b"")  # upstream's sign that the connection is made
            await while_running(serving, command.serve(streams))
        await socket.close()
    finally:
        socket.end()
