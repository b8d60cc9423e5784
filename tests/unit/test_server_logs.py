"""Container logs over the kubelet API: what they show, and how they are followed."""

from __future__ import annotations

import aiohttp
import pytest

from tests.kubelet_api import LOG, GrowingLog, Running, get


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
