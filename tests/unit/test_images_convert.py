"""Conversions of images: shared, failing, cancelled, and made again when their file is damaged."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hpk.images.errors import ImageError
from hpk.images.manager import ImageSettings
from tests.image_registry import RegistryServer
from tests.image_world import FakeApptainer, World


async def test_a_program_that_cannot_choose_the_compression_is_not_asked_to(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    (apptainer.directory / "old").touch()
    registry.push("old:1")
    await world.manager().ensure(f"{registry.host}/old:1", pull_policy="IfNotPresent")
    (call,) = apptainer.calls()
    assert call.startswith("build --force /")


async def test_a_site_whose_mksquashfs_has_no_zstd_gets_its_images_all_the_same(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    (apptainer.directory / "no-zstd").touch()
    registry.push("app:1")
    await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    first, second = apptainer.calls()
    assert "zstd" in first
    assert second.startswith("build --force --mksquashfs-args -processors 2 -mem 512M /")


async def test_a_conversion_that_fails_twice_tells_how_the_second_did(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    (apptainer.directory / "no-zstd").touch()
    (apptainer.directory / "fail").write_text("FATAL:   the second\n")
    registry.push("app:1")
    with pytest.raises(ImageError, match="FATAL:   the second"):
        await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    assert len(apptainer.calls()) == 2


async def test_many_at_once_convert_once(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    one, other = world.manager(), world.manager()
    plans = await asyncio.gather(
        *(
            manager.ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
            for manager in (one, other, one, other, one)
        )
    )
    assert len({plan.path for plan in plans}) == 1
    assert len(apptainer.calls()) == 1


async def test_a_conversion_that_fails_says_why_and_can_be_tried_again(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    (apptainer.directory / "fail").write_text(
        "INFO:    fetching\nFATAL:   while creating squashfs: write: no space left on device\n"
    )
    manager = world.manager()
    with pytest.raises(ImageError) as error:
        await manager.ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    assert error.value.reason == "ErrImagePull"
    assert "no space left on device" in error.value.message
    assert "make room" in error.value.remedy
    assert "fetching" not in str(error.value)
    assert world.leftovers() == []
    (apptainer.directory / "fail").unlink()
    await manager.ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")


async def test_no_converter_at_all(
    registry: RegistryServer, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry.push("app:1")
    monkeypatch.setenv("PATH", str(tmp_path))
    world.settings = ImageSettings(scratch=world.settings.scratch)
    with pytest.raises(
        ImageError, match=r"no apptainer or singularity on PATH.*images.runtime-path"
    ):
        await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")


async def test_a_cancelled_conversion_ends_its_process_and_leaves_nothing(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    (apptainer.directory / "hang").touch()
    manager = world.manager()
    reference = f"{registry.host}/app:1"
    first = asyncio.create_task(manager.ensure(reference, pull_policy="IfNotPresent"))
    second = asyncio.create_task(manager.ensure(reference, pull_policy="IfNotPresent"))
    pid = await apptainer.hanging()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert Path(f"/proc/{pid}").exists(), "the other one still waits for it"
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    async with asyncio.timeout(30):
        while Path(f"/proc/{pid}").exists() or world.leftovers():
            await asyncio.sleep(0.01)
    (apptainer.directory / "hang").unlink()
    await manager.ensure(reference, pull_policy="IfNotPresent")


async def test_closing_ends_what_is_under_way_with_an_error(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    (apptainer.directory / "hang").touch()
    manager = world.manager()
    waiting = asyncio.create_task(
        manager.ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    )
    await apptainer.hanging()
    await manager.close()
    with pytest.raises(ImageError):
        await waiting


@pytest.mark.parametrize("damage", ["truncate", "change", "no sif", "no entry", "bad entry"])
async def test_a_damaged_entry_is_made_again(
    registry: RegistryServer, apptainer: FakeApptainer, world: World, damage: str
) -> None:
    registry.push("app:1")
    manager = world.manager()
    reference = f"{registry.host}/app:1"
    plan = await manager.ensure(reference, pull_policy="IfNotPresent")
    sif = Path(plan.path)
    content = sif.read_bytes()
    if damage == "truncate":
        os.truncate(sif, 100)
    elif damage == "change":
        sif.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        os.utime(sif, ns=(1, 1))
    elif damage == "no sif":
        sif.unlink()
    elif damage == "no entry":
        (sif.parent / "entry.json").unlink()
    else:
        (sif.parent / "entry.json").write_text("{")
    again = await manager.ensure(reference, pull_policy="IfNotPresent")
    assert again == plan
    assert len(apptainer.calls()) == 2
    assert sif.read_bytes().startswith(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC")


async def test_a_copied_cache_is_not_damaged(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    plan = await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    os.utime(plan.path, ns=(1, 1))
    await world.manager().ensure(f"{registry.host}/app:1", pull_policy="Never")
    assert len(apptainer.calls()) == 1
