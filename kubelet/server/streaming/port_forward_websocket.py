"""port-forward by WebSocket in its old form: for each port asked for one connection, with a data
and an error channel.

Source: k8s.io/cri-streaming, pkg/streaming/portforward/websocket.go.
"""

from __future__ import annotations

import re
from http import HTTPStatus

from kubelet.server.streaming.background import all_of, background, while_running
from kubelet.server.streaming.channels import Channels, Protocol
from kubelet.server.streaming.port_forward import Target, forward
from kubelet.server.streaming.request import Request, RequestRefusedError
from kubelet.server.streaming.websocket import WebSocket
from kubelet.server.streaming.wire import Wire

PROTOCOLS = {
    "v4.channel.k8s.io": Protocol(),
    "v4.base64.channel.k8s.io": Protocol(is_base64=True),
    "": Protocol(),
}
_MOST_PORTS = 32
_PORT = re.compile(r"[0-9]{1,10}")


def wanted_ports(request: Request) -> tuple[int, ...]:
    """The ports that a request names.

    :raises RequestRefusedError: none, or something else.
    """
    texts = request.values("port")
    if not texts:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, 'query parameter "port" is required')
    ports = []
    for text in ",".join(texts).split(","):
        if not _PORT.fullmatch(text) or int(text) > 65535:
            raise RequestRefusedError(
                HTTPStatus.BAD_REQUEST, f'unable to parse "{text[:64]}" as a port'
            )
        if int(text) == 0:
            raise RequestRefusedError(HTTPStatus.BAD_REQUEST, f'port "{text}" must be > 0')
        ports.append(int(text))
    if len(ports) > _MOST_PORTS:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, f"more than {_MOST_PORTS} ports")
    return tuple(ports)


async def serve_ports(
    wire: Wire, protocol: Protocol, ports: tuple[int, ...], target: Target
) -> None:
    """One connection, to its end.

    :raises ClientGoneError: the client hung up before the end.
    """
    socket = WebSocket(wire)
    channels = Channels(socket, protocol, 2 * len(ports), range(0, 2 * len(ports), 2))

    async def serve_port(index: int, port: int) -> None:
        data, error = channels[2 * index], channels[2 * index + 1]
        for channel in (data, error):
            await channel.write(port.to_bytes(2, "little"))
        if message := await forward(target, port, data, error):
            await error.write(message.encode())
        data.inbox.drop()

    try:
        async with background(channels.serve()) as (serving,):
            work = all_of(*(serve_port(index, port) for index, port in enumerate(ports)))
            await while_running(serving, work)
        await socket.close()
    finally:
        socket.end()
