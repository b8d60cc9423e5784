"""Agreeing on a protocol, and the answers that begin it.

Source: k8s.io/streaming, httpstream/httpstream.go (Handshake) and httpstream/spdy/upgrade.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from kubelet.server.streaming.request import Request, RequestRefusedError

SPDY = "spdy/3.1"
_ASKED = "x-stream-protocol-version"


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


def spdy_answer(protocol: str) -> bytes:
    """The head that turns the connection into SPDY."""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"X-Stream-Protocol-Version: {protocol}\r\n\r\n"
    ).encode()
