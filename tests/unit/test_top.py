"""`hpk top`: what the screen shows, what its keys do, and who may see it in a browser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from http.cookies import SimpleCookie

import aiohttp
import pytest
from aiohttp import web
from textual.pilot import Pilot
from textual.widgets import DataTable, RichLog, Static

from bootstrap.host import free_port
from hpk.model.errors import TransientError
from hpk.report.ps import PsRow
from hpk.report.top import NodeRow, Picture, Usage, node_rows, usage_of_nodes, usage_of_pods
from hpk.screen.app import Shown, Top
from hpk.screen.browser import TopServer

NODE = {
    "metadata": {"name": "main"},
    "status": {
        "capacity": {"cpu": "8", "memory": "16Gi"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


def pod(name: str, phase: str, node: str = "main") -> dict[str, object]:
    return {"metadata": {"name": name}, "spec": {"nodeName": node}, "status": {"phase": phase}}


def test_a_node_counts_its_own_pods() -> None:
    pods = [pod("a", "Running"), pod("b", "Pending"), pod("c", "Running", "other")]
    used = usage_of_nodes(
        [{"metadata": {"name": "main"}, "usage": {"cpu": "1500m", "memory": "1Gi"}}]
    )
    (row,) = node_rows([NODE], pods, used)
    assert (row.ready, row.cpus, row.memory_bytes) == (True, 8, 16 << 30)
    assert (row.running, row.waiting) == (1, 1)
    assert row.usage == Usage(cpus=1.5, memory_bytes=1 << 30)


def test_a_pods_use_is_that_of_its_containers() -> None:
    item = {
        "metadata": {"namespace": "default", "name": "p"},
        "containers": [
            {"name": "a", "usage": {"cpu": "250m", "memory": "100Mi"}},
            {"name": "b", "usage": {"cpu": "nonsense", "memory": "28Mi"}},
        ],
    }
    assert usage_of_pods([item]) == {
        ("default", "p"): Usage(cpus=0.25, memory_bytes=128 << 20),
    }


ROW = PsRow(namespace="default", pod="p1", status="Running", job_id=7, state="RUNNING")
PICTURE = Picture(
    nodes=(NodeRow(name="main", ready=True, cpus=8, memory_bytes=1 << 34, running=2, waiting=0),),
    pods=(replace(ROW, cpu_hours=1.5), replace(ROW, pod="p2", status="[bold]odd[/]")),
    usage={("default", "p1"): Usage(cpus=0.5, memory_bytes=3 << 20)},
)


class Fixed:
    """A source that says what it is told to say."""

    def __init__(self) -> None:
        self.now = PICTURE
        self.trouble = ""
        self.deleted: list[str] = []

    async def picture(self) -> Picture:
        if self.trouble:
            raise TransientError(self.trouble)
        return self.now

    def log(self, namespace: str, pod: str) -> str:
        return f"said by {namespace}/{pod}\x1b[2J\n"

    def delete(self, namespace: str, pod: str) -> None:
        self.deleted.append(f"{namespace}/{pod}")


def screen(source: Fixed) -> Top:
    return Top(Shown(source=source, everywhere=False, interval_s=3600, kubectl=()))


async def see(pilot: Pilot[None], app: Top) -> list[list[str]]:
    """The Pods' table, once all messages that wait have been handled."""
    await pilot.pause()
    table = app.query_one("#pods", DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


async def until(pilot: Pilot[None], app: Top, names: list[str]) -> list[list[str]]:
    while True:
        found = await see(pilot, app)
        if [row[0] for row in found] == names:
            return found
        await asyncio.sleep(0.01)


async def test_the_screen_shows_pods_with_what_they_use() -> None:
    app = screen(Fixed())
    async with app.run_test(size=(160, 40)) as pilot:
        first, second = await until(pilot, app, ["p1", "p2"])
        assert first[:4] == ["p1", "Running", "7", "RUNNING"]
        assert first[9:12] == ["0.50", "3.0 MiB", "1.50"]
        assert second[1] == "[bold]odd[/]"
        summary = str(app.query_one("#summary", Static).render())
        assert "cost so far: 1.50 CPU-hours" in summary
        assert "1 Running" in summary


async def test_the_cursor_stays_on_its_pod() -> None:
    source = Fixed()
    app = screen(source)
    async with app.run_test(size=(160, 40)) as pilot:
        await until(pilot, app, ["p1", "p2"])
        await pilot.press("down")
        source.now = Picture(
            nodes=(), pods=tuple(replace(ROW, pod=name) for name in ("a", "b", "p2"))
        )
        await pilot.press("r")
        await until(pilot, app, ["a", "b", "p2"])
        assert app.query_one("#pods", DataTable).cursor_row == 2


async def test_what_does_not_answer_is_said_and_the_last_picture_stays() -> None:
    source = Fixed()
    app = screen(source)
    async with app.run_test(size=(160, 40)) as pilot:
        await until(pilot, app, ["p1", "p2"])
        source.trouble = "the API server does not answer"
        await pilot.press("r")
        while "does not answer" not in str(app.query_one("#summary", Static).render()):
            await pilot.pause()
        assert [row[0] for row in await see(pilot, app)] == ["p1", "p2"]


async def test_a_pod_is_deleted_only_once_that_is_confirmed() -> None:
    source = Fixed()
    app = screen(source)
    async with app.run_test(size=(160, 40)) as pilot:
        await until(pilot, app, ["p1", "p2"])
        await pilot.press("d")
        await pilot.press("n")
        await see(pilot, app)
        assert source.deleted == []
        await pilot.press("down", "d")
        await pilot.press("y")
        while not source.deleted:
            await pilot.pause()
        assert source.deleted == ["default/p2"]


async def test_a_log_cannot_steer_the_terminal() -> None:
    app = screen(Fixed())
    async with app.run_test(size=(160, 40)) as pilot:
        await until(pilot, app, ["p1", "p2"])
        await pilot.press("l")
        while not (lines := app.screen.query(RichLog)) or not lines.first().lines:
            await pilot.pause()
        text = "".join(strip.text for strip in app.screen.query_one(RichLog).lines)
        assert text.startswith("said by default/p1·[2J")
        await pilot.press("escape")
        assert app.screen.query("#pods")


@pytest.fixture
def server() -> TopServer:
    return TopServer(["true"], free_port("127.0.0.1"), lambda _text: None)


async def test_a_browser_needs_the_token(server: TopServer) -> None:
    runner = web.AppRunner(await server._make_app())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", server.port).start()
        base = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession() as stranger:
            for path in ("/", "/ws", "/static/js/textual.js", "/?token=wrong"):
                async with stranger.get(base + path) as answer:
                    assert answer.status == 403
            async with stranger.get(server.address, headers={"Host": "evil.test"}) as answer:
                assert answer.status == 403
            async with stranger.get(server.address, allow_redirects=False) as answer:
                assert answer.status == 302
                assert answer.headers["Location"] == "/"
                (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
                assert cookie["httponly"]
                assert cookie["samesite"] == "Strict"
            own = {"Cookie": f"{cookie.key}={cookie.value}"}
            async with stranger.get(base, headers=own) as answer:
                assert answer.status == 200
                assert "hpk top" in await answer.text()
    finally:
        await runner.cleanup()
