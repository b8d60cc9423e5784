"""Who is served by the kubelet API, and what for: real certificates, real reviews."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from kubelet.server.backend import AccessRequest
from tests.certificates import Authority
from tests.kubelet_api import HEALTHZ, Running, get, raw


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
