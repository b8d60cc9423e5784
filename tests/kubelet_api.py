"""A kubelet API that runs: real TLS, certificates of each test's own, a kubelet in memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography.x509.oid import ExtendedKeyUsageOID

from hpk.model.errors import TransientError
from hpk.model.settings import KubeletSettings
from kubelet.server.backend import AccessRequest, LogSource, LogUnavailableError
from kubelet.server.server import KubeletServer
from tests.certificates import Authority
from tests.kubelet_settings import free_port, kubelet_settings
from tests.local_streams import LocalStreams

LOG = b"2026-01-02T03:04:05.000000001Z stdout F one\n2026-01-02T03:04:06.000000001Z stderr F two\n"


class GrowingLog:
    """A log that a test writes while it is read."""

    def __init__(self, data: bytes = b"", *, ended: bool = False) -> None:
        self.data, self.ended = data, ended
        self.changed = asyncio.Condition()
        self.readers = 0
        self.lost = False

    async def write(self, data: bytes, *, ended: bool = False, lost: bool = False) -> None:
        async with self.changed:
            self.data += data
            self.ended, self.lost = ended, lost
            self.changed.notify_all()

    async def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, *, wait: bool) -> tuple[bytes, bool]:
        async with self.changed:
            self.readers += 1
            self.changed.notify_all()
            try:
                if wait:
                    await self.changed.wait_for(
                        lambda: len(self.data) > offset or self.ended or self.lost
                    )
                if self.lost:
                    raise LogUnavailableError("the log has gone")
                return self.data[offset:], self.ended
            finally:
                self.readers -= 1
                self.changed.notify_all()


def make_pod(name: str, node: str, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": name, "uid": f"uid-of-{name}"},
        "spec": {"nodeName": node, "containers": [{"name": "main"}]},
        "status": {"containerStatuses": [{"name": "main", "state": state}]},
    }


@dataclass
class Backend:
    """A kubelet in memory; ``rights`` are (user, verb, subresource, node)."""

    log: GrowingLog
    rights: set[tuple[str, str, str, str]] = field(default_factory=set)
    reviews: list[AccessRequest] = field(default_factory=list)
    problem: str | None = None
    api_down: bool = False
    signals: list[tuple[str, str, int]] = field(default_factory=list)
    lost: bool = False
    may_create: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_create.set()

    def pods(self) -> list[dict[str, Any]]:
        return [
            make_pod("web", "main", {"running": {}}),
            make_pod("queued", "debug", {"waiting": {"reason": "ContainerCreating"}}),
        ]

    def find_pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        return next(
            (
                pod
                for pod in self.pods()
                if (pod["metadata"]["namespace"], pod["metadata"]["name"]) == (namespace, name)
            ),
            None,
        )

    def health(self) -> str | None:
        return self.problem

    def metrics(self) -> dict[str, float]:
        return {"process_open_fds": 17, "hpk_pod_syncs_total": 1234567}

    def node_names(self) -> tuple[str, ...]:
        return ("main", "debug")

    async def open_log(
        self, namespace: str, pod: str, container: str, *, previous: bool
    ) -> LogSource:
        assert (namespace, pod, container, previous) == ("default", "web", "main", False)
        return self.log

    def is_running(self, uid: str, container: str) -> bool:
        return (uid, container) == ("uid-of-web", "main")

    async def signal_container(
        self, uid: str, container: str, number: int, *, not_before_s: int
    ) -> None:
        assert not_before_s == 0
        if self.lost:
            raise TransientError("the supervisor is not connected")
        self.signals.append((uid, container, number))

    async def review_access(self, request: AccessRequest) -> bool:
        self.reviews.append(request)
        if request.verb == "create":
            await self.may_create.wait()
        if self.api_down:
            raise TransientError("the API server does not answer")
        return (request.user, request.verb, request.subresource, request.name) in self.rights


@dataclass
class Running:
    backend: Backend
    settings: KubeletSettings
    clients: Authority
    serving: Authority
    server: KubeletServer
    streams: LocalStreams

    def allow_streams(self) -> None:
        """To the user that stands for the API server."""
        for verb in ("create", "get"):
            for node in self.backend.node_names():
                self.backend.rights.add(("api-server", verb, "proxy", node))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.settings.port}"

    def context(self, certificate: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.serving.path))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    @contextlib.asynccontextmanager
    async def client(
        self, user: str = "api-server", *groups: str
    ) -> AsyncIterator[aiohttp.ClientSession]:
        context = self.context(self.clients.issue(user, *groups))
        async with aiohttp.ClientSession(
            self.url, connector=aiohttp.TCPConnector(ssl=context, limit=1)
        ) as session:
            yield session


def make_settings(directory: Path, certificate: Path, clients: Authority) -> KubeletSettings:
    return kubelet_settings(
        port=free_port(),
        tls_cert=str(certificate),
        tls_key=str(certificate),
        client_ca=str(clients.path),
    )


@pytest_asyncio.fixture
async def running(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Running]:
    clients, serving = Authority(tmp_path, "clients"), Authority(tmp_path, "serving")
    certificate = serving.issue("kubelet", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    settings = make_settings(tmp_path, certificate, clients)
    backend = Backend(log=GrowingLog(LOG, ended=True))
    for subresource in ("proxy", "pods", "healthz"):
        for node in backend.node_names():
            backend.rights.add(("api-server", "get", subresource, node))
    server = KubeletServer()
    streams = LocalStreams()
    await server.start(settings, backend, streams)
    try:
        yield Running(backend, settings, clients, serving, server, streams)
    finally:
        await server.stop()
        await streams.stop()
    # A task that failed is told by asyncio's log alone.
    records = [r for r in caplog.get_records("call") if r.name == "asyncio"]
    errors = [r.getMessage() for r in records if r.levelno >= logging.ERROR]
    assert not errors, errors


async def get(running: Running, path: str, user: str = "api-server") -> tuple[int, str]:
    async with running.client(user) as client, client.get(path) as answer:
        return answer.status, await answer.text()


async def raw(running: Running, context: ssl.SSLContext, request: bytes) -> bytes:
    """All that comes back; b"" where the connection is refused."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection(
            "localhost", running.settings.port, ssl=context
        )
        writer.write(request)
        return await reader.read()
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()


HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
