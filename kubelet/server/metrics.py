"""GET /metrics: what the kubelet holds and has left, in Prometheus' text format."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from kubelet.server.backend import KubeletBackend

_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_router(backend: KubeletBackend) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.get("/metrics")
    async def metrics() -> PlainTextResponse:
        lines = []
        for name, value in backend.metrics().items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# TYPE {name} {kind}", f"{name} {value:.15g}"]
        return PlainTextResponse("\n".join([*lines, ""]), media_type=_MEDIA_TYPE)

    return router
