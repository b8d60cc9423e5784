"""GET /containerLogs/{namespace}/{pod}/{container}: `kubectl logs`.

Source: pkg/kubelet/server/server.go, getContainerLogs. Errors are plain text, which the API server
passes on to its client.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from hpk.model.errors import HpkError, ParseError
from kubelet.server.backend import KubeletBackend, LogNotFoundError
from kubelet.server.container_status import check_log
from kubelet.server.log_options import InvalidLogOptionsError, LogOptions, parse_log_options
from kubelet.server.log_stream import stream_log

log = logging.getLogger(__name__)


def container_logs_router(backend: KubeletBackend) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.get("/containerLogs/{namespace}/{pod}/{container}")
    async def container_logs(
        namespace: str, pod: str, container: str, request: Request
    ) -> Response:
        # The first of several values counts, as in upstream's decoder; dict() keeps the last.
        query = dict(reversed(request.query_params.multi_items()))
        try:
            options = parse_log_options(query, now_s=time.time())
        except InvalidLogOptionsError:
            return PlainTextResponse('{"message": "Invalid request."}', 422)
        except ParseError:
            return PlainTextResponse('{"message": "Unable to decode query."}', 400)
        found = backend.find_pod(namespace, pod)
        if found is None:
            return PlainTextResponse(f'pod "{pod}" does not exist', 404)
        try:
            check_log(found, container, previous=options.previous)
            pieces = await _opened(backend, namespace, pod, container, options)
        except LogNotFoundError as error:
            return PlainTextResponse(str(error), 404)
        except HpkError as error:
            return PlainTextResponse(str(error), 400)
        return StreamingResponse(pieces, media_type="text/plain")

    return router


async def _opened(
    backend: KubeletBackend, namespace: str, pod: str, container: str, options: LogOptions
) -> AsyncIterator[bytes]:
    source = await backend.open_log(namespace, pod, container, previous=options.previous)
    pieces = stream_log(source, options.wanted, follow=options.follow)
    if options.follow:
        # The client waits for the head before it shows anything, so nothing is awaited here.
        return _until_lost(pieces, f"{namespace}/{pod}")
    try:
        first = await anext(pieces, b"")
    except BaseException:
        await _close(pieces)
        raise
    return _until_lost(pieces, f"{namespace}/{pod}", first)


async def _until_lost(
    pieces: AsyncIterator[bytes], pod: str, first: bytes = b""
) -> AsyncGenerator[bytes, None]:
    try:
        if first:
            yield first
        async for piece in pieces:
            yield piece
    except HpkError as error:
        # The head is out: all that is left is to end the connection, so that the client can tell
        # a cut log from a whole one.
        log.warning("lost the log of a container: %s", error, extra={"pod": pod})
        raise LogLostError(str(error)) from error
    finally:
        await _close(pieces)


class LogLostError(Exception):
    """A log ended before its end, after the response had begun."""


async def _close(pieces: AsyncIterator[bytes]) -> None:
    if isinstance(pieces, AsyncGenerator):
        with contextlib.suppress(HpkError):
            await pieces.aclose()
