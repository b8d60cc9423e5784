"""The one list and watch, over real HTTP: pages, what is kept of a Pod, what a watch tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubelet.api.informer import PodInformer
from kubelet.api.store import StoreIdentity
from kubelet.shared_files import SharedFiles
from tests.pod_api import serve_pods


@dataclass
class Heard:
    listed: list[str] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    same_store: bool | None = None

    def pod_changed(self, pod: dict[str, Any]) -> None:
        self.pods.append(pod)
        self.changed.set()

    def pod_deleted(self, pod: dict[str, Any]) -> None:
        self.pods.append(pod)
        self.gone.set()

    def pods_listed(self, pods: list[dict[str, Any]], *, is_same_store: bool) -> None:
        self.listed = [pod["metadata"]["name"] for pod in pods]
        self.pods += pods
        self.same_store = is_same_store


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    async with serve_pods(tmp_path) as (pods, api):
        for number in range(7):
            pods.add(f"p{number}", {"phase": "Pending"})
            pods.pods[f"p{number}"]["metadata"]["managedFields"] = [{"manager": "somebody"}]
        made = Heard()
        store = StoreIdentity(api, SharedFiles(tmp_path), tmp_path / "store.json")
        informer = PodInformer(api, store, made)
        running = asyncio.ensure_future(informer.run())
        async with asyncio.timeout(60):
            await informer.synced.wait()
            await made.gone.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        yield made


async def test_all_pages_are_one_list_and_a_watch_goes_on_from_it(heard: Heard) -> None:
    assert heard.listed == [f"p{number}" for number in range(7)]
    assert heard.same_store is False, "nobody knew it before"
    assert [pod["metadata"]["name"] for pod in heard.pods[7:]] == ["late", "late"]


async def test_of_a_pod_no_more_is_kept_than_is_read(heard: Heard) -> None:
    assert all("managedFields" not in pod["metadata"] for pod in heard.pods)
    first, second = (pod["metadata"] for pod in heard.pods[:2])
    assert first["namespace"] is second["namespace"]
    assert json.loads(json.dumps(first))["name"] == "p0"
