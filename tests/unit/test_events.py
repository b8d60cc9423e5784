"""Events as they reach the API server, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from hpk.model.record import ContainerEvent
from kubelet.api import apiserver
from kubelet.status.event_correlator import BURST, COMBINED, MAX_SIMILAR
from kubelet.status.events import EventRecorder
from kubelet.status.status_manager import StatusManager
from tests.pod_api import PodApi, serve_pods


@dataclass
class Told:
    api: PodApi
    events: EventRecorder
    now_s: float = 0.0

    async def counts(self, reason: str, expected: int) -> dict[str, int]:
        """Counts by message, once the API server has heard so many with this reason."""
        async with asyncio.timeout(60):
            while True:
                found = {
                    event["message"]: event["count"]
                    for event in self.api.events.values()
                    if event["reason"] == reason
                }
                if sum(found.values()) >= expected:
                    return found
                await asyncio.sleep(0.01)


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    async with serve_pods(tmp_path) as (pods, api):
        made = Told(pods, EventRecorder(api, lambda: made.now_s))
        running = asyncio.ensure_future(made.events.run())
        yield made
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def a_pod(name: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": name, "uid": f"uid-of-{name}"},
        "spec": {"nodeName": "main", "initContainers": [{"name": "first"}]},
    }


async def test_what_repeats_is_counted(told: Told) -> None:
    for _ in range(3):
        told.events.warning(a_pod("web"), "Failed", "again")
    assert await told.counts("Failed", 3) == {"again": 3}
    told.events.warning(a_pod("web"), "Failed", "again")
    assert await told.counts("Failed", 4) == {"again": 4}


async def test_one_pod_does_not_push_out_what_others_say(told: Told) -> None:
    for number in range(1000):
        told.events.warning(a_pod("crashing"), f"Reason{number}", "failed")
    told.events.normal(a_pod("quiet"), "Started", "started")
    assert await told.counts("Started", 1) == {"started": 1}
    told.events.normal(a_pod("crashing"), "Killing", "what is no warning has its own measure")
    await told.counts("Killing", 1)
    assert sum(event["type"] == "Warning" for event in told.api.events.values()) == BURST
    told.now_s = 301.0
    told.events.warning(a_pod("crashing"), "Failed", "five minutes later")
    assert await told.counts("Failed", 1) == {"five minutes later": 1}


async def test_what_differs_in_words_alone_goes_on_as_one(told: Told) -> None:
    def fail(number: int) -> None:
        told.events.warning(a_pod("web"), "Unhealthy", f"answer {number}")

    for number in range(MAX_SIMILAR + 1):
        fail(number)
    found = await told.counts("Unhealthy", MAX_SIMILAR + 1)
    assert sorted(found.values()) == [1] * (MAX_SIMILAR - 1) + [2]
    fail(70)
    async with asyncio.timeout(60):
        while COMBINED + "answer 70" not in await told.counts("Unhealthy", 1):
            await asyncio.sleep(0.01)
    assert len(told.api.events) == MAX_SIMILAR
    told.now_s = 601.0
    fail(71)
    assert (await told.counts("Unhealthy", MAX_SIMILAR + 3))["answer 71"] == 1


async def test_minor_events_come_last_and_not_at_all_where_there_are_many(tmp_path: Path) -> None:
    async with serve_pods(tmp_path) as (pods, api):
        events = EventRecorder(api)
        for number in range(300):
            events.normal(a_pod(f"pod-{number}"), "Created", "Container created", is_minor=True)
            events.normal(a_pod(f"pod-{number}"), "Started", "Container started")
        running = asyncio.ensure_future(events.run())
        async with asyncio.timeout(60):
            while len(pods.events) < 400:
                await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert [event["reason"] for event in pods.events.values()][:300] == ["Started"] * 300
    assert len(pods.events) == 400


async def test_an_event_waits_for_a_status_and_a_status_for_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apiserver, "_CALM_WITHIN_S", 600.0)
    async with serve_pods(tmp_path) as (pods, api):
        pod = pods.add("web", {"phase": "Pending"})
        pods.hold.clear()
        status = asyncio.ensure_future(
            StatusManager(api).update(pod, {"phase": "Running", "conditions": []})
        )
        event = {"metadata": {"name": "e"}}
        path = "/api/v1/namespaces/default/events"
        while not pods.held:
            await asyncio.sleep(0.01)
        told = asyncio.ensure_future(api.create(path, event, is_urgent=False))
        for _ in range(5):
            await api.get("/api/v1/pods")  # long enough for an Event to be written
        assert not pods.events
        pods.hold.set()
        assert await status
        await told
    assert list(pods.events) == ["e"]


async def test_what_a_supervisor_saw_is_told_as_often_as_it_saw_it(told: Told) -> None:
    for count in (3, 3, 7):
        event = ContainerEvent("first", True, "Unhealthy", "probe failed", count, 1.0, 2.0)
        told.events.observed(a_pod("web"), event)
    assert await told.counts("Unhealthy", 7) == {"probe failed": 7}
    (written,) = told.api.events.values()
    assert written["involvedObject"]["fieldPath"] == "spec.initContainers{first}"


async def test_who_is_cancelled_as_his_turn_comes_is_cancelled() -> None:
    api = apiserver.ApiServer(cast(Any, None))
    for hops in range(5):
        async with api._turn(is_urgent=True):
            waiting = asyncio.ensure_future(_turn_of_an_event(api))
            await asyncio.sleep(0.01)
        for _ in range(hops):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting], timeout=5)
        assert waiting.cancelled(), f"not after {hops} turns of the loop"


async def _turn_of_an_event(api: apiserver.ApiServer) -> None:
    async with api._turn(is_urgent=False):
        await asyncio.Event().wait()
