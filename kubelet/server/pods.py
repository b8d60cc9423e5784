"""GET /pods: the Pods of all virtual nodes as one v1.PodList."""

from __future__ import annotations

import json

from fastapi import APIRouter
from starlette.responses import Response

from kubelet.server.backend import KubeletBackend


def pods_router(backend: KubeletBackend) -> APIRouter:
    """The endpoint."""
    router = APIRouter()

    @router.get("/pods")
    async def pods() -> Response:
        listing = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": backend.pods()}
        # Serialized here: FastAPI would walk every Pod through its own encoder first.
        return Response(json.dumps(listing, separators=(",", ":")), media_type="application/json")

    return router
