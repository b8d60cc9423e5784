"""`hpk ps -w`: a home's API server that is watched, and what is printed of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from bootstrap.api import TlsClient
from hpk.cli import ps as ps_module
from hpk.model.errors import HpkError, ParseError
from hpk.report import cluster as cluster_module
from hpk.report import ps_watch
from hpk.report.cluster import Cluster
from hpk.report.ps import PsRow
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths
from tests.certificates import make_certificates
from tests.kubelet_settings import free_port

PATHS = HpkPaths(home=Path("/nowhere"), cache=Path("/nowhere"))
COLUMNS = [{"name": "Name"}, {"name": "Status"}]


def table(*pods: tuple[str, str], columns: bool = True) -> dict[str, Any]:
    return {
        "kind": "Table",
        "metadata": {"resourceVersion": "7"},
        "columnDefinitions": COLUMNS if columns else [],
        "rows": [
            {
                "cells": [name, status],
                "object": {"metadata": {"uid": name, "name": name, "namespace": "default"}},
            }
            for name, status in pods
        ],
    }


def event(kind: str, *pods: tuple[str, str]) -> bytes:
    return json.dumps({"type": kind, "object": table(*pods, columns=False)}).encode()


@dataclass
class Api:
    """An API server of one namespace; its watch says ``lines`` and ends."""

    lines: list[bytes] = field(default_factory=list)
    refusals: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/api/v1/namespaces/default/pods"
        assert request.query["includeObject"] == "Object"
        assert "as=Table" in request.headers["Accept"]
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=503, text="not yet")
        if "watch" not in request.query:
            return web.json_response(table(("a", "Pending")))
        assert request.query["resourceVersion"] == "7"
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self.lines:
            await response.write(line + b"\n")
        return response


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Api]:
    made = Api()
    ca, certificate, key = make_certificates(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "localhost", port, ssl_context=context).start()
    client = TlsClient(host="localhost", port=port, ca=ca, certificate=certificate, key=key)
    monkeypatch.setattr(cluster_module, "read_endpoint", lambda _: object())
    monkeypatch.setattr(cluster_module, "client_for", lambda *_: client)
    yield made
    await runner.cleanup()


async def watched() -> list[dict[str, str]]:
    def read() -> list[dict[str, str]]:
        return [
            {item.pod["metadata"]["name"]: item.status for item in pods}
            for pods in Cluster(PATHS).watch_pods("default")
        ]

    return await asyncio.to_thread(read)


async def test_a_watch_tells_all_pods_again_at_each_change(api: Api) -> None:
    api.lines = [
        event("ADDED", ("b", "Pending")),
        event("BOOKMARK"),
        event("MODIFIED", ("a", "Running")),
        event("DELETED", ("b", "Pending")),
        event("ERROR"),
        event("MODIFIED", ("a", "never seen")),
    ]
    assert await watched() == [
        {"a": "Pending"},
        {"a": "Pending", "b": "Pending"},
        {"a": "Running", "b": "Pending"},
        {"a": "Running"},
    ]


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"type": "ADDED", "object": {"rows": [1]}}'])
async def test_nonsense_is_no_watch(api: Api, line: bytes) -> None:
    api.lines = [line]
    with pytest.raises(ParseError):
        await watched()


async def test_what_is_in_the_way_is_told_once_and_the_watch_goes_on(
    api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ps_watch, "_AGAIN_S", 0.01)
    monkeypatch.setattr(ps_watch, "_SHOW_S", 0.01)
    api.refusals = 3
    paths = HpkPaths(home=tmp_path, cache=tmp_path)
    seen: list[Any] = []
    rows = ps_watch.watch_rows(paths, CliBackend(), "default")
    async with asyncio.timeout(60), contextlib.aclosing(rows):
        async for news in rows:
            seen.append(news)
            if not isinstance(news, HpkError):
                break
    assert isinstance(seen[0], HpkError)
    assert "not yet" in str(seen[0])
    assert [(row.pod, row.status) for row in seen[-1]] == [("a", "Pending")]
    assert len(seen) == 2


def test_rows_are_printed_when_they_change_and_not_as_time_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = ps_module._Changes("default", as_json=False)
    a = PsRow(namespace="default", pod="a", status="Running", elapsed_s=1)
    b = PsRow(namespace="default", pod="b", status="Pending")
    later = PsRow(namespace="default", pod="a", status="Running", elapsed_s=9)
    done = PsRow(namespace="default", pod="a", status="Completed", elapsed_s=9)
    with changes:
        for rows in ((a,), (a, b), (later, b), (done,), (done, b)):
            changes.rows(rows)
    lines = [line.split("\t")[:2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["POD", "STATUS"],
        ["a", "Running"],
        ["b", "Pending"],
        ["a", "Completed"],
        ["b", "Pending"],
    ]


def test_on_a_narrow_terminal_names_are_whole() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=30)
    name = "a-name-as-long-as-it-is"
    row = PsRow(namespace="default", pod=name, status="Running", nodes="n[1-200]")
    with ps_module._Drawing(console, "default") as drawing:
        drawing.rows((row,))
        drawing.rows(())
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert f"{name}  Runn" in shown
    assert "n[1-" not in shown
    assert "no Pods in namespace default" in shown
