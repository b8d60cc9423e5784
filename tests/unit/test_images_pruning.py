"""What of the cache of images goes when it is pruned, and what must stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpk.cli.images import images
from hpk.images.pruning import DAY_S, prune
from hpk.images.store import ImageStore
from tests.image_registry import RegistryServer
from tests.image_world import World


async def _make(registry: RegistryServer, world: World, name: str, *, age_days: float) -> Path:
    registry.push(f"{name}:1", {"config": {"Cmd": [name]}})
    plan = await world.manager().ensure(f"{registry.host}/{name}:1", pull_policy="IfNotPresent")
    entry = Path(plan.path).parent
    then = time.time() - age_days * DAY_S
    os.utime(entry / "entry.json", (then, then))
    return entry


async def test_old_images_go_unless_a_pod_is_made_of_them(
    registry: RegistryServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await _make(registry, world, "old", age_days=40)
    new = await _make(registry, world, "new", age_days=20)
    queued = await _make(registry, world, "queued", age_days=40)
    attempt = world.paths.pods / "0-1/attempts/n"
    attempt.mkdir(parents=True)
    (attempt / "pod.json").write_text(
        '{"plan": {"init": [{"image": {"path": "%s/image.sif"}}], "image": []}}' % queued  # noqa: UP031
    )
    (world.paths.pods / "0-2/attempts/n").mkdir(parents=True)
    (world.paths.pods / "0-2/attempts/n/pod.json").write_text("{")
    monkeypatch.setenv("HPK_HOME", str(world.paths.home))
    monkeypatch.setenv("HPK_CACHE", str(world.paths.cache))
    told = CliRunner().invoke(images, ["prune", "--dry-run"], catch_exceptions=False)
    assert f"{registry.host}/old:1" in told.output
    assert "in 1 images to be removed" in told.output
    assert old.exists()
    CliRunner().invoke(images, ["prune"], catch_exceptions=False)
    assert [entry.exists() for entry in (old, new, queued)] == [False, True, True]


async def test_a_use_is_noted_and_keeps_an_image(registry: RegistryServer, world: World) -> None:
    entry = await _make(registry, world, "app", age_days=40)
    await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    assert prune(world.paths, unused_days=30) == ()
    assert entry.exists()


async def test_an_image_used_while_pruning_decides_stays(
    registry: RegistryServer, world: World
) -> None:
    entry = await _make(registry, world, "app", age_days=0)
    digest = f"{entry.parent.name}:{entry.name}"
    store = ImageStore(world.paths)
    assert not store.remove(digest, unused_since_s=time.time() - DAY_S)
    assert store.remove(digest, unused_since_s=time.time() + DAY_S)
    assert not store.remove(digest, unused_since_s=time.time() + DAY_S)
