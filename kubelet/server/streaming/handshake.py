"""Agreeing on a protocol, and the answers that begin it.

Source: k8s.io/streaming, httpstream/httpstream.go (Handshake), httpstream/spdy/upgrade.go and
httpstream/wsstream/conn.go; RFC 6455, 4.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Sequence
from http import HTTPStatus

from kubelet.server.streaming.request import Request, RequestRefusedError

SPDY = "spdy/3.1"
_ASKED = "x-stream-protocol-version"
_SUBPROTOCOLS = "sec-websocket-protocol"
_WEBSOCKET_VERSION = "13"
_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def agree_on_spdy(request: Request, served: Sequence[str]) -> str:
    """The first of the client's protocols that is served.

    :raises RequestRefusedError: there is none, or the client asks for no SPDY.
    """
    if SPDY not in request.headers.get("upgrade", "").lower():
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST, "unable to upgrade: missing upgrade headers in request"
        )
    if _ASKED not in request.headers:
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST,
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with"
            f" {len(request.headers)} headers",
        )
    asked = request.tokens(_ASKED)
    if not asked:
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST,
            "unable to upgrade: header X-Stream-Protocol-Version contains no valid protocols",
        )
    for protocol in asked:
        if protocol in served:
            return protocol
    raise RequestRefusedError(
        HTTPStatus.FORBIDDEN,
        "unable to upgrade: unable to negotiate protocol: client supports"
        f" [{' '.join(asked)}], server accepts [{' '.join(served)}]",
        {"X-Accepted-Stream-Protocol-Versions": ", ".join(served)},
    )


def is_websocket(request: Request) -> bool:
    """Whether a client asks for a WebSocket."""
    return request.headers.get("upgrade", "").lower() == "websocket"


def agree_on_websocket(request: Request, served: Collection[str]) -> str:
    """The first of the client's subprotocols that is served; "" may be one, for clients that name
    none.

    :raises RequestRefusedError: there is none, or this is no such request.
    """
    if request.method != "GET":
        raise RequestRefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "405: Method Not Allowed")
    if request.headers.get("sec-websocket-version") != _WEBSOCKET_VERSION:
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST,
            "unable to upgrade: missing or bad WebSocket Version",
            {"Sec-WebSocket-Version": _WEBSOCKET_VERSION},
        )
    try:
        key = base64.b64decode(request.headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise RequestRefusedError(
            HTTPStatus.BAD_REQUEST, "unable to upgrade: missing or bad Sec-WebSocket-Key"
        )
    asked = request.tokens(_SUBPROTOCOLS) or ("",)
    for protocol in asked:
        if protocol in served:
            return protocol
    raise RequestRefusedError(
        HTTPStatus.FORBIDDEN,
        f"unable to upgrade: requested protocol(s) are not supported: [{' '.join(asked)}];"
        f" supports [{' '.join(filter(None, served))}]",
    )


def websocket_answer(request: Request, protocol: str) -> bytes:
    """The head that turns the connection into a WebSocket."""
    key = request.headers["sec-websocket-key"].encode()
    # Not a secret's hash: RFC 6455, 4.2.2 wants SHA-1.
    accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest())
    chosen = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept.decode()}\r\n{chosen}\r\n"
    ).encode()


def spdy_answer(protocol: str) -> bytes:
    """The head that turns the connection into SPDY."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    ).encode()
