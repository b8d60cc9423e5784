"""The kubelet API over real TLS: its small endpoints, its start, and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from hpk.model.errors import PermanentError, TransientError
from hpk.model.settings import KubeletSettings
from kubelet.link import tls_listener
from kubelet.server import front_door
from kubelet.server import server as server_module
from kubelet.server.server import KubeletServer
from tests.kubelet_api import HEALTHZ, Running, get, raw


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


async def test_unknown_paths_and_methods(running: Running) -> None:
    running.backend.rights.add(("api-server", "create", "proxy", "main"))
    assert (await get(running, "/nothing"))[0] == 404
    assert (await get(running, "/pods/../containerLogs/default/web/main%2F"))[0] == 404
    async with (
        running.client() as client,
        client.post("/containerLogs/default/web/main") as answer,
    ):
        assert answer.status == 405


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
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_listener, "_PATIENCE_S", 0.0)
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


async def test_metrics_are_served_whole(running: Running) -> None:
    running.backend.rights |= {
        ("api-server", "get", "metrics", node) for node in running.backend.node_names()
    }
    status, text = await get(running, "/metrics")
    assert status == 200
    assert "# TYPE hpk_pod_syncs_total counter\nhpk_pod_syncs_total 1234567\n" in text
    assert "# TYPE process_open_fds gauge\nprocess_open_fds 17\n" in text
