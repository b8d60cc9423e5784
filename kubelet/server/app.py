"""The FastAPI application: the endpoints, and in front of each request its authorization.

The peer comes from the front door in the connection's state; a request without one is refused.
"""

from __future__ import annotations

import contextlib
import logging

from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from hpk.model.errors import HpkError
from kubelet.server.authorization import Authorizer, describe, question_for
from kubelet.server.backend import KubeletBackend
from kubelet.server.container_logs import LogLostError, container_logs_router
from kubelet.server.healthz import healthz_router
from kubelet.server.metrics import metrics_router
from kubelet.server.peer import Peer
from kubelet.server.pods import pods_router

log = logging.getLogger(__name__)

PEER_STATE = "peer"


def make_app(backend: KubeletBackend, authorizer: Authorizer) -> ASGIApp:
    """The application for one backend."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.include_router(healthz_router(backend))
    app.include_router(pods_router(backend))
    app.include_router(metrics_router(backend))
    app.include_router(container_logs_router(backend))
    return AuthorizationGate(app, backend, authorizer)


class AuthorizationGate:
    """Lets a request through to the application if its peer may make it.

    Written against ASGI itself: a middleware of the framework's would buffer between a log and its
    reader, and would not see paths without a route.
    """

    def __init__(self, app: ASGIApp, backend: KubeletBackend, authorizer: Authorizer) -> None:
        self._app = app
        self._backend = backend
        self._authorizer = authorizer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = await self._refusal(scope)
        # A log lost half-way leaves the response incomplete: the server then ends the connection.
        with contextlib.suppress(LogLostError):
            await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        peer = scope.get("state", {}).get(PEER_STATE)
        if scope["type"] != "http" or not isinstance(peer, Peer):
            return PlainTextResponse("Unauthorized", 401)
        question = question_for(
            scope["method"], scope["path"], self._backend.find_pod, self._backend.node_names()
        )
        try:
            if await self._authorizer.allowed(peer, question):
                return None
        except HpkError as error:
            log.warning("cannot authorize a request: %s", error, extra={"user": peer.user})
            return PlainTextResponse(f"Authorization error ({describe(peer, question)})", 500)
        log.info("refuse a request", extra={"user": peer.user, "path": scope["path"]})
        return PlainTextResponse(f"Forbidden ({describe(peer, question)})\n", 403)
