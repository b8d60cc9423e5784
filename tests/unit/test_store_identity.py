"""Whether a missing Pod was deleted: what is known of the API server's store, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpk.model.ids import PodUid
from hpk.statefs import HpkPaths
from kubelet.api.apiserver import ApiError
from kubelet.api.store import StoreIdentity
from kubelet.pods.orphaned_pods import keep_no_longer, keep_pod, kept_pods
from kubelet.shared_files import SharedFiles
from tests.pod_api import PodApi, serve_pods


@dataclass
class Stores:
    api: PodApi
    make: Callable[[], StoreIdentity]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with serve_pods(tmp_path) as (pods, api):
        file = tmp_path / "store.json"
        yield Stores(pods, lambda: StoreIdentity(api, SharedFiles(tmp_path), file))


async def test_a_kubelet_that_knows_no_store_deletes_nothing(stores: Stores) -> None:
    assert not await stores.make().listed(100)


async def test_a_kubelet_that_comes_back_knows_its_store(stores: Stores) -> None:
    await stores.make().listed(100)
    assert await stores.make().listed(100)
    assert await stores.make().listed(170)


async def test_an_older_store_was_restored(stores: Stores) -> None:
    first = stores.make()
    await first.listed(100)
    first.saw(150)
    assert await first.listed(160)
    assert not await stores.make().listed(159)


async def test_another_store_is_another(stores: Stores) -> None:
    await stores.make().listed(100)
    stores.api.store = "store-2"
    assert not await stores.make().listed(200)
    assert await stores.make().listed(201), "and is known from then on"


async def test_a_store_that_does_not_say_who_it_is_deletes_nothing(stores: Stores) -> None:
    await stores.make().listed(100)
    stores.api.store = ""
    assert not await stores.make().listed(200)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_a_store_that_cannot_say_now_is_asked_again(stores: Stores, status: int) -> None:
    await stores.make().listed(100)
    stores.api.store, stores.api.store_refusal = "", status
    with pytest.raises(ApiError):
        await stores.make().listed(200)
    stores.api.store = "store-1"
    assert await stores.make().listed(200)


def test_what_is_kept_stays_kept_until_its_pod_is_there_again(tmp_path: Path) -> None:
    paths = HpkPaths(home=tmp_path, cache=tmp_path)
    uid, gone = PodUid("0a1b"), PodUid("0a1c")
    paths.pod_dir(uid).mkdir(parents=True)
    keep_pod(paths, uid)
    keep_pod(paths, uid)
    keep_pod(paths, gone)
    assert kept_pods(paths) == {uid}
    keep_no_longer(paths, uid)
    assert kept_pods(paths) == frozenset()
