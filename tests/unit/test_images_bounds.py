"""How much of a login node images take: so many at once, each file once, nothing for nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from hpk.images.manager import ImageSettings
from hpk.images.recent import Recent
from kubelet.api.apiserver import ApiServer
from kubelet.pods.pod_images import PodImages
from kubelet.status.events import EventRecorder
from tests.image_registry import RegistryServer
from tests.image_world import FakeApptainer, World
from tests.waiting import eventually

COUNTING_UNSQUASHFS = """#!/bin/sh
echo "$*" >> "$(dirname "$0")/looks"
exec /usr/bin/unsquashfs "$@"
"""


def looks(apptainer: FakeApptainer) -> list[str]:
    """The calls of unsquashfs."""
    path = apptainer.directory / "looks"
    return path.read_text().splitlines() if path.exists() else []


async def a_sif_file(registry: RegistryServer, world: World, directory: Path) -> Path:
    """A SIF file outside the cache."""
    registry.push("file:1")
    plan = await world.manager().ensure(f"{registry.host}/file:1", pull_policy="IfNotPresent")
    directory.mkdir()
    return Path(plan.path).rename(directory / "a file.sif")


async def test_sixty_pods_of_one_file_look_into_it_once(
    registry: RegistryServer, apptainer: FakeApptainer, world: World, tmp_path: Path
) -> None:
    path = await a_sif_file(registry, world, tmp_path / "files")
    program = apptainer.directory / "unsquashfs"
    program.write_text(COUNTING_UNSQUASHFS)
    program.chmod(0o755)
    manager = world.manager()

    async def ensure() -> str:
        return (await manager.ensure(str(path), pull_policy="Always")).passwd

    found = await asyncio.gather(*(ensure() for _ in range(60)))
    assert set(found) == {found[0]}
    assert found[0].startswith("root:")
    await ensure()
    (look,) = looks(apptainer)
    assert "-processors 2 " in look
    os.utime(path, ns=(1, 1))
    await ensure()
    assert len(looks(apptainer)) == 2, "another file, as far as anybody can tell"


async def test_a_file_needs_no_apptainer(
    registry: RegistryServer,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = await a_sif_file(registry, world, tmp_path / "files")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/unsquashfs").symlink_to("/usr/bin/unsquashfs")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    world.settings = ImageSettings(scratch=world.settings.scratch)
    plan = await world.manager().ensure(str(path), pull_policy="IfNotPresent")
    assert plan.passwd.startswith("root:")


async def test_no_more_are_converted_at_once_than_the_site_allows(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    world.settings = dataclasses.replace(world.settings, conversions_at_once=1, processors=3)
    (apptainer.directory / "hang").touch()
    manager = world.manager()
    said: dict[str, list[str]] = {}
    tasks = []
    for name in ("one", "two"):
        registry.push(f"{name}:1", {"config": {"Cmd": [name]}})
        reference, heard = f"{registry.host}/{name}:1", said.setdefault(name, [])
        tasks.append(
            asyncio.create_task(
                manager.ensure(reference, pull_policy="IfNotPresent", tell=heard.append)
            )
        )
    await apptainer.hanging()
    await asyncio.to_thread(
        eventually, lambda: sum(map(len, said.values())) == 2, what="both to say something"
    )
    (waiting,) = [texts for texts in said.values() if texts != ["converting it"]]
    assert waiting == ["waiting: 1 other image is being worked on, which is the most at once"]
    (call,) = apptainer.calls()
    assert "-processors 3 -mem 512M " in call
    (apptainer.directory / "hang").unlink()
    await asyncio.gather(*tasks)
    assert waiting[1:] == ["converting it"]
    assert len(apptainer.calls()) == 2


async def test_a_second_pod_hears_of_a_conversion_that_runs_already(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    (apptainer.directory / "hang").touch()
    manager = world.manager()
    reference = f"{registry.host}/app:1"
    first = asyncio.create_task(manager.ensure(reference, pull_policy="IfNotPresent"))
    await apptainer.hanging()
    heard: list[str] = []
    second = asyncio.create_task(
        manager.ensure(reference, pull_policy="IfNotPresent", tell=heard.append)
    )
    await asyncio.to_thread(
        eventually, lambda: heard == ["converting it"], what="the second to be told"
    )
    (apptainer.directory / "hang").unlink()
    await asyncio.gather(first, second)


async def test_a_pod_that_goes_ends_the_conversion_that_it_alone_waited_for(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    (apptainer.directory / "hang").touch()
    tasks: list[asyncio.Task[None]] = []

    def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(coroutine))
        return tasks[-1]

    images = PodImages(
        provider=world.manager(),
        events=EventRecorder(cast(ApiServer, None)),  # which none of its events needs here
        spawn=spawn,
        ready=lambda: None,
    )
    container = {"name": "main", "image": f"{registry.host}/app:1"}
    metadata = {"namespace": "default", "name": "pod", "uid": "1"}
    assert await images.get({"metadata": metadata, "spec": {"containers": [container]}}) is None
    pid = await apptainer.hanging()
    assert images.waiting.message.endswith("converting it")
    images.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(
        eventually,
        lambda: not Path(f"/proc/{pid}").exists() and not world.leftovers(),
        what="the conversion's end",
    )


async def test_a_thousand_pods_of_one_image_look_for_it_once() -> None:
    asked: list[str] = []
    answered = asyncio.Event()

    def looker(key: str) -> Callable[[], Coroutine[Any, Any, str | None]]:
        async def look() -> str | None:
            asked.append(key)
            await answered.wait()
            return f"{key}-{len(asked)}" if key != "absent" else None

        return look

    recent: Recent[str] = Recent(fresh_s=3600)
    waiting = [asyncio.create_task(recent.get("one", looker("one"))) for _ in range(1000)]
    await asyncio.sleep(0)
    answered.set()
    assert set(await asyncio.gather(*waiting)) == {"one-1"}
    assert await recent.get("one", looker("one")) == "one-1"
    assert await recent.get("other", looker("other")) == "other-2"
    assert asked == ["one", "other"]
    assert [await recent.get("absent", looker("absent")) for _ in range(2)] == [None, None]
    assert len(asked) == 4, "what is not there is looked for by each"
    always: Recent[str] = Recent(fresh_s=0)
    assert [await always.get("one", looker("one")) for _ in range(2)] == ["one-5", "one-6"]
