"""A connection that leaves HTTP: who may, for what, and by which codec.

Source: pkg/kubelet/server/server.go, getExec, getAttach and getPortForward.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from hpk.model.errors import HpkError
from kubelet.server import exec_signal
from kubelet.server.authorization import Authorizer, describe, question_for
from kubelet.server.backend import ContainerNotFoundError, KubeletBackend
from kubelet.server.front_door import Upgrade, answer
from kubelet.server.streaming import (
    command_spdy,
    command_websocket,
    port_forward,
    port_forward_websocket,
    tunnel,
)
from kubelet.server.streaming.client_stream import ClientGoneError
from kubelet.server.streaming.handshake import (
    agree_on_spdy,
    agree_on_websocket,
    is_websocket,
    spdy_answer,
    websocket_answer,
)
from kubelet.server.streaming.remote_command import RemoteCommand
from kubelet.server.streaming.request import (
    EXEC,
    PORT_FORWARD,
    Request,
    RequestRefusedError,
    parse_request,
    wanted_streams,
)
from kubelet.server.streaming.wire import TlsWire
from kubelet.server.streams import RemoteStream, StreamBackend, Streams

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """What the ways in need of it."""

    backend: KubeletBackend
    streams: StreamBackend | None
    authorizer: Authorizer


async def serve_upgrade(upgrade: Upgrade, kubelet: Kubelet) -> None:
    """Serve one request to upgrade, to the end of its connection."""
    try:
        request, rest = parse_request(upgrade.received)
        await _authorize(upgrade, request, kubelet)
        await _serve(upgrade, rest, request, kubelet)
    except RequestRefusedError as refused:
        status = f"{refused.status.value} {refused.status.phrase}"
        answer(upgrade.transport, status, str(refused), refused.headers)
        # It still has to read its client's agreement to the end of TLS.
        upgrade.transport.resume_reading()
    except ClientGoneError as error:
        log.info("a client has left its streams: %s", error, extra={"path": request.path})


async def _authorize(upgrade: Upgrade, request: Request, kubelet: Kubelet) -> None:
    backend = kubelet.backend
    question = question_for(request.method, request.path, backend.find_pod, backend.node_names())
    try:
        allowed = await kubelet.authorizer.allowed(upgrade.peer, question)
    except HpkError as error:
        log.warning("cannot authorize a request: %s", error, extra={"user": upgrade.peer.user})
        raise RequestRefusedError(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            f"Authorization error ({describe(upgrade.peer, question)})",
        ) from error
    if not allowed:
        log.info("refuse a request", extra={"user": upgrade.peer.user, "path": request.path})
        raise RequestRefusedError(
            HTTPStatus.FORBIDDEN, f"Forbidden ({describe(upgrade.peer, question)})"
        )


async def _serve(upgrade: Upgrade, rest: bytes, request: Request, kubelet: Kubelet) -> None:
    if request.method not in ("GET", "POST"):
        raise RequestRefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "405: Method Not Allowed")
    if request.endpoint == PORT_FORWARD:
        await _serve_port_forward(upgrade, rest, request, kubelet)
    else:
        await _serve_command(upgrade, rest, request, kubelet)


async def _serve_command(upgrade: Upgrade, rest: bytes, request: Request, kubelet: Kubelet) -> None:
    wanted = wanted_streams(request)
    command = _command(request, wanted, kubelet)
    if is_websocket(request):
        protocol = agree_on_websocket(request, command_websocket.PROTOCOLS)
        wire = _begin(upgrade, rest, websocket_answer(request, protocol))
        channels = command_websocket.PROTOCOLS[protocol]
        await command_websocket.serve_command(wire, channels, wanted, command)
    else:
        protocol = agree_on_spdy(request, command_spdy.PROTOCOLS)
        wire = _begin(upgrade, rest, spdy_answer(protocol))
        await command_spdy.serve_command(wire, protocol, wanted, command)
    wire.close()


async def _serve_port_forward(
    upgrade: Upgrade, rest: bytes, request: Request, kubelet: Kubelet
) -> None:
    uid = _find_pod(request, kubelet)["metadata"]["uid"]
    streams = _streams(kubelet)
    target = port_forward.Target(
        pod=request.pod, uid=uid, dial=lambda port: streams.open_dial(uid, port)
    )
    if not is_websocket(request):
        protocol = agree_on_spdy(request, port_forward.PROTOCOLS)
        wire = _begin(upgrade, rest, spdy_answer(protocol))
        await port_forward.PortForward(wire, target).serve()
    elif tunnel.PROTOCOL in request.tokens("sec-websocket-protocol"):
        protocol = agree_on_websocket(request, (tunnel.PROTOCOL,))
        wire = _begin(upgrade, rest, websocket_answer(request, protocol))
        await tunnel.serve_tunnel(wire, target)
    else:
        ports = port_forward_websocket.wanted_ports(request)
        protocol = agree_on_websocket(request, port_forward_websocket.PROTOCOLS)
        wire = _begin(upgrade, rest, websocket_answer(request, protocol))
        channels = port_forward_websocket.PROTOCOLS[protocol]
        await port_forward_websocket.serve_ports(wire, channels, ports, target)
        wire.close()


def _begin(upgrade: Upgrade, rest: bytes, head: bytes) -> TlsWire:
    wire = TlsWire(upgrade, rest)
    wire.write(head)
    return wire


def _find_pod(request: Request, kubelet: Kubelet) -> dict[str, Any]:
    pod = kubelet.backend.find_pod(request.namespace, request.pod)
    if pod is None:
        raise RequestRefusedError(HTTPStatus.NOT_FOUND, "pod does not exist")
    if request.uid not in ("", pod["metadata"]["uid"]):
        if request.endpoint == PORT_FORWARD:
            raise RequestRefusedError(HTTPStatus.NOT_FOUND, "pod not found")
        raise _no_container(request)
    return pod


def _no_container(request: Request) -> RequestRefusedError:
    return RequestRefusedError(
        HTTPStatus.INTERNAL_SERVER_ERROR, str(ContainerNotFoundError(request.container))
    )


def _command(request: Request, wanted: Streams, kubelet: Kubelet) -> RemoteCommand:
    uid = _find_pod(request, kubelet)["metadata"]["uid"]
    if not kubelet.backend.is_running(uid, request.container):
        raise _no_container(request)
    command = request.values("command")
    if request.endpoint != EXEC:
        streams = _streams(kubelet)

        async def join() -> RemoteStream:
            return await streams.open_attach(uid, request.container, wanted, None)

        return RemoteCommand(begin=join, command=())
    if not command or not command[0] or any("\0" in argument for argument in command):
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "you must specify a command")
    if exec_signal.signal_of(command) is None:
        _streams(kubelet)

    async def run() -> RemoteStream:
        sent = await exec_signal.open_signal(kubelet.backend, uid, request.container, command)
        if sent is not None:
            return sent
        return await _streams(kubelet).open_exec(uid, request.container, command, wanted, None)

    return RemoteCommand(begin=run, command=command)


def _streams(kubelet: Kubelet) -> StreamBackend:
    if kubelet.streams is None:
        raise RequestRefusedError(
            HTTPStatus.NOT_IMPLEMENTED, "only the exec of `kill -SIGNAL 1` is served"
        )
    return kubelet.streams
