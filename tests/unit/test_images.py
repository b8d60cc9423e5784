"""Images end to end, without a cluster: from a reference to a registry, a digest and a plan."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpk.images.errors import ImageError
from hpk.model.plan import ImageConfig
from tests.image_registry import GROUP, PASSWD, RegistryServer
from tests.image_world import FakeApptainer, World


async def test_an_image_is_resolved_converted_and_described(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("tools/busybox:1")
    reference = f"{registry.host}/tools/busybox:1"
    plan = await world.manager().ensure(reference, pull_policy="IfNotPresent")
    assert plan.reference == reference
    repository, _, digest = plan.image_id.partition("@")
    assert repository == f"{registry.host}/tools/busybox"
    assert plan.config == ImageConfig(
        entrypoint=("/bin/busybox",),
        cmd=("echo", "a b"),
        env=(("PATH", "/bin"), ("EMPTY", ""), ("EQ", "a=b")),
        working_dir="/srv",
        user="app",
        stop_signal="SIGINT",
    )
    assert (plan.passwd, plan.group) == (PASSWD, GROUP)
    assert Path(plan.path).name == "image.sif"
    assert Path(plan.path).stat().st_mode & 0o777 == 0o600
    (call,) = apptainer.calls()
    assert call.startswith("build --force --mksquashfs-args -comp zstd")
    assert call.endswith(f" docker://{repository}@{digest}")
    listed = world.manager().listing()
    assert [entry.manifest_digest for entry in listed] == [digest]
    assert reference in listed[0].references
    assert listed[0].size_bytes > Path(plan.path).stat().st_size


async def test_what_is_known_needs_no_registry_and_no_conversion(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("busybox:latest")
    first = await world.manager().ensure(f"{registry.host}/busybox", pull_policy="Always")
    registry.stop()
    manager = world.manager()
    for spelled in (f"{registry.host}/busybox", f"{registry.host}/busybox:latest", first.image_id):
        for policy in ("IfNotPresent", "Never"):
            plan = await manager.ensure(spelled, pull_policy=policy)
            assert (plan.path, plan.image_id) == (first.path, first.image_id)
    assert len(apptainer.calls()) == 1
    with pytest.raises(ImageError) as error:
        await manager.ensure(f"{registry.host}/busybox", pull_policy="Always")
    assert error.value.reason == "ErrImagePull"
    assert registry.host in str(error.value)


async def test_always_follows_a_tag_that_moves(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:stable")
    manager = world.manager()
    reference = f"{registry.host}/app:stable"
    first = await manager.ensure(reference, pull_policy="Always")
    again = await manager.ensure(reference, pull_policy="Always")
    assert again == first
    registry.push("app:stable", {"config": {"Cmd": ["new"]}, "os": "linux"})
    assert await manager.ensure(reference, pull_policy="IfNotPresent") == first
    manager = world.manager()  # the first one may take what it was told for new for a moment
    moved = await manager.ensure(reference, pull_policy="Always")
    assert moved.config.cmd == ("new",)
    assert moved.path != first.path
    assert await manager.ensure(reference, pull_policy="IfNotPresent") == moved
    assert len(apptainer.calls()) == 2


async def test_two_tags_of_one_image_are_converted_once(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    registry.push("app:2")
    manager = world.manager()
    one = await manager.ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    two = await manager.ensure(f"{registry.host}/app:2", pull_policy="Always")
    assert one.path == two.path
    assert len(apptainer.calls()) == 1


async def test_an_index_gives_this_platform_and_reports_its_own_digest(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("multi:1", index=True)
    plan = await world.manager().ensure(f"{registry.host}/multi:1", pull_policy="IfNotPresent")
    (call,) = apptainer.calls()
    converted = call.rpartition("@")[2]
    assert plan.image_id.rpartition("@")[2] != converted
    assert converted.removeprefix("sha256:") in plan.path
    registry.stop()
    again = await world.manager().ensure(plan.image_id, pull_policy="IfNotPresent")
    assert again.path == plan.path


async def test_an_image_that_does_not_exist(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    for reference in ("absent:1", "app:2", "app@sha256:" + "0" * 64):
        with pytest.raises(ImageError) as error:
            await world.manager().ensure(f"{registry.host}/{reference}", pull_policy="Always")
        assert error.value.reason == "ErrImagePull"
        assert f"{registry.host}/{reference}" in str(error.value)
        assert "not found" in str(error.value)
        assert "MANIFEST_UNKNOWN" in str(error.value) or "NAME_UNKNOWN" in str(error.value)
    assert apptainer.calls() == []


async def test_never_and_invalid_names(world: World) -> None:
    with pytest.raises(ImageError) as error:
        await world.manager().ensure("busybox", pull_policy="Never")
    assert error.value.reason == "ErrImageNeverPull"
    assert '"busybox" is not present with pull policy of Never' in str(error.value)
    with pytest.raises(ImageError) as error:
        await world.manager().ensure("UPPER/case$(touch x)", pull_policy="Never")
    assert error.value.reason == "InvalidImageName"


async def test_a_registry_whose_certificate_is_not_trusted(
    registry: RegistryServer, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    registry.push("app:1")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ImageError, match=r"(?i)certificate") as error:
        await world.manager().ensure(f"{registry.host}/app:1", pull_policy="Always")
    assert error.value.reason == "ErrImagePull"


async def test_an_image_without_accounts_or_with_links_for_them(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    etc = apptainer.directory / "rootfs/etc"
    etc.chmod(0o755)
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to("/etc/passwd")
    (etc / "group").unlink()
    plan = await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    assert (plan.passwd, plan.group) == ("", "")


async def test_an_image_without_etc(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    registry.push("app:1")
    rootfs = apptainer.directory / "rootfs"
    (rootfs / "etc").chmod(0o755)
    shutil.rmtree(rootfs / "etc")
    (rootfs / "program").touch()
    plan = await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    assert (plan.passwd, plan.group) == ("", "")
