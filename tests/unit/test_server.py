"""The kubelet API over real TLS, with real certificates and real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hpk.model.errors import PermanentError, TransientError
from hpk.model.settings import KubeletSettings
from kubelet.server import front_door, spdy
from kubelet.server import server as server_module
from kubelet.server.backend import AccessRequest, LogSource, LogUnavailableError
from kubelet.server.exec_signal import signal_of
from kubelet.server.server import KubeletServer

LOG = b"2026-01-02T03:04:05.000000001Z stdout F one\n2026-01-02T03:04:06.000000001Z stderr F two\n"


class Authority:
    """A certificate authority with its files."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self.subject, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    def issue(
        self,
        user: str,
        *groups: str,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Path:
        """One file with certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        if user:
            names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        certificate = (
            self._builder(x509.Name(names), key.public_key())
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = self.directory / f"{self.name}-{user or 'nobody'}-{len(groups)}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path


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

    def health(self) -> str | None:
        return self.problem

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_settings(directory: Path, certificate: Path, clients: Authority) -> KubeletSettings:
    return KubeletSettings(
        kubeconfig="",
        cluster_name="test",
        address="127.0.0.1",
        port=free_port(),
        tls_cert=str(certificate),
        tls_key=str(certificate),
        client_ca=str(clients.path),
        channel_port=0,
        channel_cert="",
        channel_key="",
        channel_ca="",
        api_host="",
        api_port=0,
        orphan_timeout_s=0,
    )


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    clients, serving = Authority(tmp_path, "clients"), Authority(tmp_path, "serving")
    certificate = serving.issue("kubelet", usage=ExtendedKeyUsageOID.SERVER_AUTH)
    settings = make_settings(tmp_path, certificate, clients)
    backend = Backend(log=GrowingLog(LOG, ended=True))
    for subresource in ("proxy", "pods", "healthz"):
        for node in backend.node_names():
            backend.rights.add(("api-server", "get", subresource, node))
    server = KubeletServer()
    await server.start(settings, backend)
    try:
        yield Running(backend, settings, clients, serving, server)
    finally:
        await server.stop()


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


async def test_a_client_with_the_right_certificate_is_served(running: Running) -> None:
    assert await get(running, "/healthz") == (200, "ok")
    context = running.context(running.clients.issue("api-server"))
    assert (await raw(running, context, HEALTHZ)).endswith(b"ok")


async def test_nobody_else_gets_a_byte(running: Running, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "foreign")
    for certificate in (
        None,
        foreign.issue("api-server"),
        running.serving.issue("api-server"),
        running.clients.issue("api-server", usage=ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = running.context(certificate)
            context.maximum_version = version
            assert await raw(running, context, HEALTHZ) == b""
    assert running.backend.reviews == []


async def test_a_certificate_that_names_nobody_is_unauthorized(running: Running) -> None:
    context = running.context(running.clients.issue("", "system:masters"))
    answer = await raw(running, context, HEALTHZ)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert running.backend.reviews == []


async def test_old_tls_is_refused(running: Running) -> None:
    context = running.context(running.clients.issue("api-server"))
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert await raw(running, context, HEALTHZ) == b""


async def test_the_review_names_user_groups_and_node(running: Running) -> None:
    async with (
        running.client("alice", "devs", "ops") as client,
        client.get("/containerLogs/default/web/main") as answer,
    ):
        assert answer.status == 403
        assert await answer.text() == (
            "Forbidden (user=alice, verb=get, resource=nodes, subresource(s)=[proxy])\n"
        )
    assert running.backend.reviews == [
        AccessRequest(
            user="alice",
            groups=("devs", "ops", "system:authenticated"),
            verb="get",
            subresource="proxy",
            name="main",
        )
    ]


async def test_each_request_of_one_connection_is_authorized(running: Running) -> None:
    running.backend.rights.add(("alice", "get", "proxy", "main"))
    connects: list[object] = []
    tracing = aiohttp.TraceConfig()

    async def count(*event: object) -> None:
        connects.append(event)

    tracing.on_connection_create_end.append(count)
    context = running.context(running.clients.issue("alice"))
    async with aiohttp.ClientSession(
        running.url, connector=aiohttp.TCPConnector(ssl=context), trace_configs=[tracing]
    ) as client:
        for path, status in (
            ("/containerLogs/default/web/main", 200),
            ("/containerLogs/default/queued/main", 403),
            ("/pods", 403),
            ("/containerLogs/default/web/main", 200),
        ):
            async with client.get(path) as answer:
                assert answer.status == status
                await answer.read()
    assert len(connects) == 1


async def test_a_fine_grained_right_suffices_and_gives_no_more(running: Running) -> None:
    running.backend.rights |= {("probe", "get", "healthz", n) for n in ("main", "debug")}
    assert (await get(running, "/healthz", "probe"))[0] == 200
    assert (await get(running, "/pods", "probe"))[0] == 403
    running.backend.rights.add(("half", "get", "pods", "main"))
    assert (await get(running, "/pods", "half"))[0] == 403


async def test_the_verb_is_the_method(running: Running) -> None:
    async with running.client() as client:
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            async with client.request(method, "/pods") as answer:
                assert answer.status == 403
    assert {review.verb for review in running.backend.reviews} == {"create", "update", "delete", ""}


async def test_a_review_that_fails_lets_nobody_in_and_is_not_remembered(running: Running) -> None:
    running.backend.api_down = True
    status, text = await get(running, "/pods")
    assert status == 500
    assert text.startswith("Authorization error (user=api-server")
    running.backend.api_down = False
    assert (await get(running, "/pods"))[0] == 200


async def test_answers_are_remembered(running: Running) -> None:
    await get(running, "/pods")
    asked = len(running.backend.reviews)
    await get(running, "/pods")
    assert len(running.backend.reviews) == asked == 2


async def test_pods(running: Running) -> None:
    status, text = await get(running, "/pods")
    assert status == 200
    listing = json.loads(text)
    assert (listing["kind"], listing["apiVersion"]) == ("PodList", "v1")
    assert listing["items"] == running.backend.pods()


async def test_healthz_says_what_is_wrong(running: Running) -> None:
    assert (await get(running, "/healthz/ping")) == (200, "ok")
    assert "[+]syncloop ok" in (await get(running, "/healthz?verbose"))[1]
    running.backend.problem = "no answer from squeue"
    status, text = await get(running, "/healthz")
    assert status == 500
    assert "no answer from squeue" in text
    assert (await get(running, "/healthz/syncloop"))[0] == 500
    assert (await get(running, "/healthz/ping"))[0] == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "one\ntwo\n"),
        ("?tailLines=1", "two\n"),
        ("?tailLines=0", ""),
        ("?limitBytes=5", "one\nt"),
        ("?stream=Stderr", "two\n"),
        ("?stream=Stdout&timestamps=true", "2026-01-02T03:04:05.000000001Z one\n"),
        ("?sinceTime=2026-01-02T03:04:06Z", "two\n"),
        ("?sinceSeconds=1", ""),
        ("?tail=1", "two\n"),
        ("?tail=all", "one\ntwo\n"),
        ("?follow=true", "one\ntwo\n"),
        ("?follow=true&tailLines=1", "two\n"),
        ("?tailLines=1&tailLines=2", "two\n"),
    ],
)
async def test_logs(running: Running, query: str, expected: str) -> None:
    assert await get(running, "/containerLogs/default/web/main" + query) == (200, expected)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("tailLines=-1", 422),
        ("limitBytes=0", 422),
        ("sinceSeconds=0", 422),
        ("sinceSeconds=1&sinceTime=2026-01-02T03:04:06Z", 422),
        ("stream=stdout", 422),
        ("stream=Stdout&tailLines=1", 422),
        ("tailLines=x", 400),
        ("tailLines=99999999999999999999", 400),
        ("limitBytes=1e3", 400),
        ("sinceTime=yesterday", 400),
        ("sinceTime=2026-13-02T03:04:06Z", 400),
    ],
)
async def test_bad_options(running: Running, query: str, status: int) -> None:
    texts = {
        422: '{"message": "Invalid request."}',
        400: '{"message": "Unable to decode query."}',
    }
    answer = await get(running, f"/containerLogs/default/web/main?{query}")
    assert answer == (status, texts[status])


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("default/absent/main", 404, 'pod "absent" does not exist'),
        ("other/web/main", 404, 'pod "web" does not exist'),
        ("default/web/absent", 404, 'container "absent" not found in pod "web"'),
        (
            "default/queued/main",
            400,
            'container "main" in pod "queued" is waiting to start: ContainerCreating',
        ),
        (
            "default/web/main?previous=true",
            400,
            'previous terminated container "main" in pod "web" not found',
        ),
    ],
)
async def test_no_log(running: Running, path: str, status: int, message: str) -> None:
    assert await get(running, "/containerLogs/" + path) == (status, message)


async def test_unknown_paths_and_methods(running: Running) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    assert (await get(running, "/nothing"))[0] == 404
    assert (await get(running, "/pods/../containerLogs/default/web/main%2F"))[0] == 404
    async with (
        running.client() as client,
        client.post("/containerLogs/default/web/main") as answer,
    ):
        assert answer.status == 405


async def test_follow_shows_each_line_as_it_comes_and_ends_with_the_container(
    running: Running,
) -> None:
    log = running.backend.log = GrowingLog()
    async with (
        running.client() as client,
        client.get("/containerLogs/default/web/main?follow=1") as answer,
    ):
        # The head is here although nothing was written yet.
        assert answer.status == 200
        assert answer.headers["Transfer-Encoding"] == "chunked"
        for number in range(3):
            await log.write(b"2026-01-02T03:04:05Z stdout F %d\n" % number)
            assert await answer.content.readline() == b"%d\n" % number
        await log.write(b"2026-01-02T03:04:05Z stdout F last\n", ended=True)
        assert await answer.content.read() == b"last\n"


async def test_a_follower_that_goes_away_ends_its_reader(running: Running) -> None:
    log = running.backend.log = GrowingLog()
    async with (
        running.client() as client,
        client.get("/containerLogs/default/web/main?follow=true") as answer,
    ):
        assert answer.status == 200
        async with log.changed:
            await log.changed.wait_for(lambda: log.readers == 1)
    async with log.changed:
        await log.changed.wait_for(lambda: log.readers == 0)
    assert (await get(running, "/healthz"))[0] == 200


async def test_a_log_lost_half_way_is_not_taken_for_a_whole_one(running: Running) -> None:
    log = running.backend.log = GrowingLog(LOG)
    async with (
        running.client() as client,
        client.get("/containerLogs/default/web/main?follow=true") as answer,
    ):
        assert await answer.content.readline() == b"one\n"
        await log.write(b"", lost=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()


async def test_stop_ends_a_follower(running: Running) -> None:
    running.backend.log = GrowingLog()
    async with running.client() as client:
        async with client.get("/containerLogs/default/web/main?follow=true") as answer:
            assert answer.status == 200
            await running.server.stop()
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("/healthz")


async def test_a_slow_reader_holds_back_the_log_not_the_server(running: Running) -> None:
    line = b"2026-01-02T03:04:05Z stdout F " + b"x" * 1000 + b"\n"
    running.backend.log = GrowingLog(line * 5000, ended=True)
    async with (
        running.client() as slow,
        running.client() as other,
        slow.get("/containerLogs/default/web/main") as answer,
    ):
        async with other.get("/healthz") as health:
            assert health.status == 200
        assert len(await answer.read()) == 5000 * 1001


async def test_an_upgrade_is_refused_clearly(running: Running) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    context = running.context(running.clients.issue("api-server"))
    answer = await raw(
        running,
        context,
        b"POST /exec/default/web/main?command=id HTTP/1.1\r\nHost: x\r\n"
        b"connection:keep-alive,  Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert b"exec" in answer


def exec_head(query: str, container: str = "web/main") -> bytes:
    return (
        f"POST /exec/default/{container}?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v5.channel.k8s.io\r\n"
        "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
        "X-Stream-Protocol-Version: channel.k8s.io\r\n\r\n"
    ).encode()


def stream_frames(*kinds: str) -> list[bytes]:
    """What a client sends to open streams, one after the other."""
    packer = zlib.compressobj(zdict=spdy.dictionary())
    frames = []
    for number, kind in enumerate(kinds):
        pairs = struct.pack(">II", 1, 10) + b"streamtype" + struct.pack(">I", len(kind))
        block = packer.compress(pairs + kind.encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack(">IIH", 2 * number + 1, 0, 0) + block
        frames.append(struct.pack(">HHI", 0x8003, spdy.SYN_STREAM, len(body)) + body)
    return frames


async def read_ends(reader: asyncio.StreamReader, count: int) -> tuple[list[int], dict[int, bytes]]:
    """The streams that were answered, and the last data of each."""
    replies: list[int] = []
    ends: dict[int, bytes] = {}
    while len(ends) < count:
        first, second = struct.unpack(">II", await reader.readexactly(8))
        payload = await reader.readexactly(second & 0xFFFFFF)
        if first >> 31:
            assert first & 0xFFFF == spdy.SYN_REPLY
            replies.append(struct.unpack_from(">I", payload)[0])
        else:
            assert second >> 24 == spdy.FIN
            ends[first] = payload
    return replies, ends


@pytest.mark.parametrize("lost", [False, True])
async def test_an_exec_of_kill_signals_the_containers_main_process(
    running: Running, lost: bool
) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    running.backend.lost = lost
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    query = "command=/var/run/argo/argoexec&command=kill&command=15&command=1&output=1&error=1"
    writer.write(exec_head(query))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    for frame in stream_frames("error", "stdout", "stderr"):
        writer.write(frame)
    replies, ends = await read_ends(reader, 3)
    assert replies == [1, 3, 5]
    assert (ends[3], ends[5]) == (b"", b"")
    assert json.loads(ends[1])["status"] == ("Failure" if lost else "Success")
    assert running.backend.signals == ([] if lost else [("uid-of-web", "main", 15)])
    writer.close()


async def test_what_comes_while_an_exec_is_authorized_waits_and_starts_no_other(
    running: Running,
) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    running.backend.may_create.clear()
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    frames = stream_frames("error", "stdout", "stderr")
    head = exec_head("command=kill&command=-15&command=1&output=1&error=1")
    for piece in (head + frames[0], frames[1], frames[2]):
        writer.write(piece)
        await get(running, "/healthz")  # by when this piece has arrived
    running.backend.may_create.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    replies, ends = await read_ends(reader, 3)
    assert (replies, json.loads(ends[1])["status"]) == ([1, 3, 5], "Success")
    assert len([r for r in running.backend.reviews if r.verb == "create"]) == 1
    assert running.backend.signals == [("uid-of-web", "main", 15)]
    writer.close()


@pytest.mark.parametrize("with_eof", [False, True])
async def test_an_exec_that_is_refused_ends_whatever_was_sent_meanwhile(
    running: Running, with_eof: bool
) -> None:
    running.backend.may_create.clear()
    context = running.context(running.clients.issue("somebody"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    writer.write(exec_head("command=kill&command=-9&command=1"))
    await get(running, "/healthz")
    writer.write(b"x" * 100_000)
    if with_eof:
        writer.close()
    await get(running, "/healthz")
    running.backend.may_create.set()
    with contextlib.suppress(ConnectionError):
        assert with_eof or (await reader.read()).startswith(b"HTTP/1.1 403 ")
    while running.server._upgrades:
        await asyncio.sleep(0)
    assert running.backend.signals == []
    writer.close()
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        await writer.wait_closed()


async def test_a_signal_needs_the_right_to_the_node(running: Running) -> None:
    context = running.context(running.clients.issue("somebody"))
    answer = await raw(running, context, exec_head("command=kill&command=-9&command=1"))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert running.backend.signals == []


@pytest.mark.parametrize(
    ("container", "status", "message"),
    [
        ("web/absent", 500, b'container not found ("absent")'),
        ("web/uid-of-its-predecessor/main", 500, b'container not found ("main")'),
        ("queued/main", 500, b'container not found ("main")'),
        ("absent/main", 404, b"pod does not exist"),
        ("web/uid-of-web/main", 101, b""),
    ],
)
async def test_only_a_running_container_of_this_very_pod_can_be_signalled(
    running: Running, container: str, status: int, message: bytes
) -> None:
    running.backend.rights |= {("api-server", "create", "proxy", n) for n in ("main", "debug")}
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    writer.write(exec_head("command=kill&command=-15&command=1", container))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 %d " % status)
    if status != 101:
        assert await reader.read() == message
    writer.close()
    assert running.backend.signals == []


@pytest.mark.parametrize("kinds", [("error", "error", "stdout"), ("error", "other")])
async def test_streams_that_no_exec_has_end_it(running: Running, kinds: tuple[str, ...]) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    context = running.context(running.clients.issue("api-server"))
    head = exec_head("command=kill&command=-15&command=1&output=1")
    answer = await raw(running, context, head + b"".join(stream_frames(*kinds)))
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert running.backend.signals == []


async def test_a_client_that_only_sends_pings_does_not_make_us_keep_the_answers() -> None:
    ours, silent = socket.socketpair()
    ping = struct.pack(">HHI", 0x8003, spdy.PING, 100_000) + bytes(100_000)
    with silent:
        _, writer = await asyncio.open_connection(sock=ours)
        reader = asyncio.StreamReader()
        reader.feed_data(ping * 100)
        reader.feed_eof()
        task = asyncio.ensure_future(spdy.Connection(reader, writer).accept_stream())
        await asyncio.sleep(0)  # nothing but a full connection makes the task wait
        assert not task.done()
        assert writer.transport.get_write_buffer_size() < 2 * len(ping)
        writer.transport.abort()
        with pytest.raises(ConnectionError):
            await task


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("kill", "-²", "1"), None),
        (("kill", "-٩", "1"), None),
        (("/var/run/argo/argoexec", "kill", "15", "1"), 15),
        (("/bin/sh", "-c", "kill -9 1"), 9),
        (("sh", "-c", "kill -s TERM 1"), 15),
        (("kill", "-SIGUSR1", "1"), 10),
        (("/bin/kill", "1"), None),
        (("kill", "-9", "-1"), None),
        (("kill", "-9", "12"), None),
        (("kill", "-99", "1"), None),
        (("sh", "-c", "kill -9 1; reboot"), None),
        (("/var/run/argo/argoexec", "kill", "15", "2"), None),
        (("echo", "kill -9 1"), None),
    ],
)
def test_which_commands_are_a_signal(command: tuple[str, ...], expected: int | None) -> None:
    assert signal_of(command) == expected


async def test_a_head_without_end_is_cut_off(running: Running) -> None:
    context = running.context(running.clients.issue("api-server"))
    endless = b"GET / HTTP/1.1\r\nX: " + b"x" * (front_door.MAX_HEAD_BYTES + 1)
    answer = await raw(running, context, endless)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_never_comes_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_door, "HEAD_TIMEOUT_S", 0.05)
    context = running.context(running.clients.issue("api-server"))
    assert await raw(running, context, b"GET /heal") == b""


async def test_a_head_in_pieces(running: Running) -> None:
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    for byte in HEALTHZ:
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.read()).endswith(b"ok")
    writer.close()
    await writer.wait_closed()


async def test_of_many_silent_connections_the_oldest_makes_room(
    running: Running,
) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        silent = []
        for _ in range(server_module._MOST_HANDSHAKES + 5):
            at = ("127.0.0.1", running.settings.port)
            connection = await asyncio.to_thread(socket.create_connection, at, 10)
            connection.setblocking(False)
            silent.append(stack.enter_context(connection))
        for connection in silent[:5]:
            assert await loop.sock_recv(connection, 1) == b""
        assert await get(running, "/healthz") == (200, "ok")
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)


async def test_every_address_is_refused(running: Running, tmp_path: Path) -> None:
    for address in ("0.0.0.0", "::", ""):
        settings = KubeletSettings(**{**_fields(running.settings), "address": address})
        with pytest.raises(PermanentError, match="every interface"):
            await KubeletServer().start(settings, running.backend)


async def test_a_taken_port_and_a_missing_certificate(running: Running, tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=str(running.settings.port)):
        await KubeletServer().start(running.settings, running.backend)
    absent = str(tmp_path / "absent.pem")
    settings = KubeletSettings(**{**_fields(running.settings), "tls_cert": absent})
    with pytest.raises(PermanentError, match=r"absent\.pem"):
        await KubeletServer().start(settings, running.backend)


def _fields(settings: KubeletSettings) -> dict[str, Any]:
    return dict(vars(settings))
