"""What is written of a Pod's status, beside others who write to it: over real HTTP."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kubelet.status.status_manager import StatusManager
from kubelet.status.status_patch import plan_status_patch
from tests.pod_api import PodApi, serve_pods

READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
INITIALIZED = {**READY, "type": "Initialized"}
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
RUNNING: dict[str, Any] = {
    "phase": "Running",
    "conditions": [INITIALIZED, READY],
    "podIPs": [{"ip": "10.0.0.1"}],
}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[PodApi, StatusManager]]:
    async with serve_pods(tmp_path) as (pods, api):
        yield pods, StatusManager(api)


def conditions(pods: PodApi) -> dict[str, str]:
    return {c["type"]: c["status"] for c in pods.pods["web"]["status"]["conditions"]}


async def test_what_is_there_already_is_not_sent_again(
    served: tuple[PodApi, StatusManager],
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Pending"})
    assert await statuses.update(stale, RUNNING)
    assert await statuses.update(stale, RUNNING), "the watch has not caught up yet"
    assert await statuses.update(pods.watched("web"), RUNNING)
    assert len(pods.patches) == 1


async def test_what_the_node_controller_did_is_repaired(
    served: tuple[PodApi, StatusManager],
) -> None:
    pods, statuses = served
    await statuses.update(pods.add("web", {"phase": "Pending"}), RUNNING)
    drifted = pods.change("web", {**READY, "status": "False", "reason": "NodeNotReady"})
    assert await statuses.update(drifted, RUNNING)
    assert conditions(pods)["Ready"] == "True"
    assert pods.patches[-1] == {"conditions": [{**READY, "reason": None}]}


async def test_conditions_of_others_stay_though_the_watch_did_not_show_them_yet(
    served: tuple[PodApi, StatusManager],
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Running"})
    pods.change("web", DISRUPTED, {"type": "example.com/gate", "status": "True"})
    assert await statuses.update(stale, {**RUNNING, "phase": "Failed"})
    assert set(conditions(pods)) == {
        "DisruptionTarget",
        "example.com/gate",
        "Initialized",
        "Ready",
    }


async def test_a_phase_is_told_once(
    served: tuple[PodApi, StatusManager], caplog: pytest.LogCaptureFixture
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Pending"})
    with caplog.at_level(logging.INFO):
        await statuses.update(stale, RUNNING)
        again = {**RUNNING, "conditions": [{**READY, "status": "False"}]}
        await statuses.update(stale, again)
    told = [r.message for r in caplog.records if r.name.startswith("kubelet")]
    assert [text.rpartition(" ")[2] for text in told] == ["phase=Running"]


async def test_a_pod_is_deleted_once(served: tuple[PodApi, StatusManager]) -> None:
    pods, statuses = served
    pod = pods.add("web", {"phase": "Failed"})
    for _ in range(3):
        await statuses.finish_deletion(pod)
    assert pods.deletions == ["web"]
    statuses.forget(pod["metadata"]["uid"])
    await statuses.finish_deletion(pod)
    assert pods.deletions == ["web", "web"]


async def test_a_pod_that_is_gone_or_another_by_now_is_told(
    served: tuple[PodApi, StatusManager],
) -> None:
    pods, statuses = served
    pod = pods.add("web", {"phase": "Pending"})
    pods.pods["web"]["metadata"]["uid"] = "another"
    assert not await statuses.update(pod, RUNNING)
    del pods.pods["web"]
    assert not await statuses.update(pod, RUNNING)


async def test_our_own_write_is_known_when_the_watch_shows_it(
    served: tuple[PodApi, StatusManager],
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Pending"})
    await statuses.update(stale, RUNNING)
    shown = copy.deepcopy(pods.pods["web"])
    assert statuses.is_own_write(shown, stale)
    await statuses.update(shown, {**RUNNING, "phase": "Succeeded"})
    assert not statuses.is_own_write(pods.change("web", DISRUPTED), shown)


@pytest.mark.parametrize("changed", ["metadata", "spec"])
async def test_our_own_write_with_a_change_of_others_is_news(
    served: tuple[PodApi, StatusManager], changed: str
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Pending"})
    pods.pods["web"][changed]["labels"] = {"a": "b"}
    await statuses.update(stale, RUNNING)
    assert not statuses.is_own_write(copy.deepcopy(pods.pods["web"]), stale)


async def test_our_own_write_that_left_what_we_do_not_know_of_is_news(
    served: tuple[PodApi, StatusManager],
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Running"})
    pods.change("web", phase="Failed")
    await statuses.update(stale, RUNNING)
    assert not statuses.is_own_write(copy.deepcopy(pods.pods["web"]), stale)


async def test_what_the_api_server_does_not_take_is_not_sent_for_ever(
    served: tuple[PodApi, StatusManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    pods, statuses = served
    stale = pods.add("web", {"phase": "Pending"})
    monkeypatch.setattr(pods, "_merge", lambda old, patch: None)
    for _ in range(3):
        await statuses.update(stale, RUNNING)
        stale = pods.watched("web")
    assert len(pods.patches) == 1


def test_a_reason_that_holds_no_more_is_taken_away() -> None:
    base = {"phase": "Pending", "reason": "NodeLost", "message": "gone", "podIP": "10.0.0.1"}
    assert plan_status_patch(base, {"phase": "Pending"}) == {"reason": None, "message": None}


def test_addresses_are_replaced_not_gathered() -> None:
    base = {"podIPs": [{"ip": "10.0.0.1"}]}
    patch = plan_status_patch(base, {"podIPs": [{"ip": "10.0.0.2"}]})
    assert patch == {"podIPs": [{"ip": "10.0.0.2"}, {"$patch": "delete", "ip": "10.0.0.1"}]}


def test_what_json_leaves_out_is_no_difference() -> None:
    wanted = {"containerStatuses": [{"name": "main", "imageID": "", "lastState": {}}]}
    assert plan_status_patch({"containerStatuses": [{"name": "main"}]}, wanted) == {}
