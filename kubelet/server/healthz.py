"""GET /healthz, /healthz/ping, /healthz/syncloop, in the words of upstream's healthz handlers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

from kubelet.server.backend import KubeletBackend


def healthz_router(backend: KubeletBackend) -> APIRouter:
    """The endpoints."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz(request: Request) -> PlainTextResponse:
        problem = backend.health()
        lines = ["[+]ping ok", f"[{'-' if problem else '+'}]syncloop {_outcome(problem)}"]
        if problem:
            return PlainTextResponse("\n".join([*lines, "healthz check failed", ""]), 500)
        if "verbose" in request.query_params:
            return PlainTextResponse("\n".join([*lines, "healthz check passed", ""]))
        return PlainTextResponse("ok")

    @router.get("/healthz/ping")
    async def ping() -> PlainTextResponse:
        return PlainTextResponse("ok")

    @router.get("/healthz/syncloop")
    async def syncloop() -> PlainTextResponse:
        problem = backend.health()
        if problem:
            return PlainTextResponse(f"internal server error: {problem}\n", 500)
        return PlainTextResponse("ok")

    return router


def _outcome(problem: str | None) -> str:
    return f"failed: {problem}" if problem else "ok"
