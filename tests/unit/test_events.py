"""Events as they reach the API server, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpk.model.record import ContainerEvent
from kubelet.status.events import BURST, EventRecorder
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
        told.events.warning(a_pod("crashing"), "Failed", f"failure {number}")
    told.events.normal(a_pod("quiet"), "Started", "started")
    assert await told.counts("Started", 1) == {"started": 1}
    assert len(await told.counts("Failed", BURST)) == BURST
    told.now_s = 301.0
    told.events.warning(a_pod("crashing"), "Failed", "five minutes later")
    assert "five minutes later" in await told.counts("Failed", BURST + 1)


async def test_what_a_supervisor_saw_is_told_as_often_as_it_saw_it(told: Told) -> None:
    for count in (3, 3, 7):
        event = ContainerEvent("first", True, "Unhealthy", "probe failed", count, 1.0, 2.0)
        told.events.observed(a_pod("web"), event)
    assert await told.counts("Unhealthy", 7) == {"probe failed": 7}
    (written,) = told.api.events.values()
    assert written["involvedObject"]["fieldPath"] == "spec.initContainers{first}"
