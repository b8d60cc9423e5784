"""Images end to end, without a cluster: a real registry over TLS, a fake apptainer on PATH.

The fake makes a real squashfs in a SIF file, so that everything around it is the real thing; the
lab's tests use the real apptainer.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hpk.images.build_lock import build_lock
from hpk.images.errors import ImageError
from hpk.images.manager import ImageManager, ImageSettings
from hpk.model.plan import ImageConfig
from hpk.statefs import HpkPaths
from tests.certificates import make_certificates

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1000:\n"
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Entrypoint": ["/bin/busybox"],
        "Cmd": ["echo", "a b"],
        "Env": ["PATH=/bin", "EMPTY=", "EQ=a=b"],
        "WorkingDir": "/srv",
        "User": "app",
        "StopSignal": "SIGINT",
    },
}
FAKE_APPTAINER = r"""#!/usr/bin/python3 -I
import os, pathlib, struct, subprocess, sys, time
here = pathlib.Path(__file__).resolve().parent
if sys.argv[1:] == ["build", "--help"]:
    print("" if (here / "old").exists() else "  --mksquashfs-args string")
    sys.exit()
with open(here / "calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
if (here / "no-zstd").exists() and "--mksquashfs-args" in sys.argv:
    sys.exit("FATAL:   mksquashfs: Invalid compressor zstd")
if (here / "fail").exists():
    sys.stderr.write((here / "fail").read_text())
    sys.exit(255)
if (here / "hang").exists():
    (here / "hanging").write_text(str(os.getpid()))
    while (here / "hang").exists():
        time.sleep(0.02)
sif = pathlib.Path(sys.argv[-2])
squashfs = pathlib.Path(os.environ["APPTAINER_TMPDIR"]) / "root.squashfs"
subprocess.run(["mksquashfs", here / "rootfs", squashfs, "-quiet", "-no-progress", "-all-root"],
               check=True, stdout=subprocess.DEVNULL)
data, at = squashfs.read_bytes(), 40960
header = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0" + b"02\0" + bytes(16)
header += struct.pack("<8q", 0, 0, 46, 48, 4096, 48 * 585, at, len(data))
labels = struct.pack("<iBIIIqq", 0x4003, 1, 1, 1, 0, at, 0).ljust(585, b"\0")
root = struct.pack("<iBIIIqq", 0x4004, 1, 2, 1, 0, at, len(data)).ljust(201, b"\0")
root = (root + struct.pack("<ii3s", 1, 2, b"02\0")).ljust(585, b"\0")
sif.write_bytes(((header.ljust(4096, b"\0")) + labels + root).ljust(at, b"\0") + data)
"""


def write_oci_layout(directory: Path, config: dict[str, Any], *, foreign_index: bool) -> None:
    """An OCI image layout: one image of one layer; with an index, another platform beside it."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    layer = put(buffer.getvalue())
    kind = "application/vnd.oci.image"

    def image(architecture: str) -> dict[str, Any]:
        described = {**config, "architecture": architecture}
        described["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"]]}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {
                "mediaType": f"{kind}.config.v1+json",
                **put(json.dumps(described).encode()),
            },
            "layers": [{"mediaType": f"{kind}.layer.v1.tar", **layer}],
        }
        return {
            "mediaType": f"{kind}.manifest.v1+json",
            **put(json.dumps(manifest).encode()),
            "platform": {"os": "linux", "architecture": architecture},
        }

    top = image("amd64")
    if foreign_index:
        index = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.index.v1+json",
            "manifests": [image("s390x"), top],
        }
        top = {"mediaType": f"{kind}.index.v1+json", **put(json.dumps(index).encode())}
    (directory / "index.json").write_text(
        json.dumps({"schemaVersion": 2, "manifests": [{**top, "annotations": {}}]})
    )
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@dataclass
class RegistryServer:
    """Debian's docker-registry on a free port of the loopback interface."""

    host: str
    directory: Path
    process: subprocess.Popen[bytes]

    def push(self, name: str, config: dict[str, Any] | None = None, *, index: bool = False) -> None:
        layout = self.directory / f"layout-{time.monotonic_ns()}"
        write_oci_layout(layout, CONFIG if config is None else config, foreign_index=index)
        subprocess.run(
            [
                "skopeo",
                "copy",
                "--quiet",
                "--all",
                "--insecure-policy",
                "--dest-tls-verify=false",
                f"oci:{layout}",
                f"docker://{self.host}/{name}",
            ],
            check=True,
            timeout=60,
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegistryServer]:
    directory = tmp_path / "registry"
    directory.mkdir()
    ca, certificate, key = make_certificates(directory, "localhost")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = directory / "config.json"
    configuration.write_text(
        json.dumps(
            {
                "version": "0.1",
                "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
                "http": {
                    "addr": f"127.0.0.1:{port}",
                    "tls": {"certificate": str(certificate), "key": str(key)},
                },
            }
        )
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(configuration)], stdout=log, stderr=log
        )
    server = RegistryServer(f"localhost:{port}", directory, process)
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield server
    finally:
        server.stop()


@dataclass
class FakeApptainer:
    """The program's directory, which holds its root file system and its instructions."""

    directory: Path

    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    async def hanging(self) -> int:
        """Its process id, once it hangs."""
        async with asyncio.timeout(30):
            while True:
                path = self.directory / "hanging"
                if path.exists() and (text := path.read_text()):
                    return int(text)
                await asyncio.sleep(0.01)


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApptainer:
    directory = tmp_path / "nasty 'dir' $(x)"
    etc = directory / "rootfs/etc"
    etc.mkdir(parents=True)
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text(GROUP)
    program = directory / "apptainer"
    program.write_text(FAKE_APPTAINER)
    program.chmod(0o755)
    etc.chmod(0o555)
    return FakeApptainer(directory)


@dataclass
class World:
    """Managers over one cache."""

    paths: HpkPaths
    settings: ImageSettings
    managers: list[ImageManager]

    def manager(self) -> ImageManager:
        manager = ImageManager(self.paths, self.settings)
        self.managers.append(manager)
        return manager

    def leftovers(self) -> list[str]:
        """What no build may leave: working space and half-made entries."""
        assert self.settings.scratch is not None
        hidden = [p.name for p in self.paths.images.glob("*/*/.*")]
        return hidden + [p.name for p in self.settings.scratch.iterdir()]


@pytest_asyncio.fixture
async def world(tmp_path: Path, apptainer: FakeApptainer) -> AsyncIterator[World]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = ImageSettings(runtime_path=(apptainer.directory,), scratch=scratch)
    built = World(HpkPaths(home=tmp_path / "home", cache=tmp_path / "cache"), settings, [])
    try:
        yield built
    finally:
        for manager in built.managers:
            await manager.close()
        assert built.leftovers() == []


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
    assert second.startswith("build --force /")


async def test_a_conversion_that_fails_twice_tells_how_the_second_did(
    registry: RegistryServer, apptainer: FakeApptainer, world: World
) -> None:
    (apptainer.directory / "no-zstd").touch()
    (apptainer.directory / "fail").write_text("FATAL:   the second\n")
    registry.push("app:1")
    with pytest.raises(ImageError, match="FATAL:   the second"):
        await world.manager().ensure(f"{registry.host}/app:1", pull_policy="IfNotPresent")
    assert len(apptainer.calls()) == 2


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
    with pytest.raises(ImageError, match="no apptainer or singularity on PATH"):
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


def never() -> bool:
    return False


async def test_a_lock_excludes_while_its_owner_beats(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    async with build_lock(path, never, beat_s=0.01, stale_s=0.5, poll_s=0.01) as held:
        assert held
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                async with build_lock(path, never, stale_s=0.5, poll_s=0.01):
                    pytest.fail("two hold the lock")
        done = [False]
        waiting = asyncio.create_task(_acquired(path, done))
        done[0] = True
        assert await waiting is False
    assert not path.exists()


async def _acquired(path: Path, done: list[bool]) -> bool:
    async with build_lock(path, lambda: done[0], poll_s=0.01) as held:
        return held


async def test_the_lock_of_another_hosts_dead_owner_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("elsewhere/boot/pid:[1] 1 00000000000000000007\n")
    async with asyncio.timeout(30):
        async with build_lock(path, never, stale_s=0.05, poll_s=0.01) as held:
            assert held
    assert list(tmp_path.iterdir()) == []


async def test_the_lock_of_a_dead_process_here_is_broken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    script = (
        "import asyncio, os, pathlib, sys\n"
        "from hpk.images.build_lock import build_lock\n"
        "async def main():\n"
        "    async with build_lock(pathlib.Path(sys.argv[1]), lambda: False):\n"
        "        os._exit(9)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        str(path),
    )
    assert await child.wait() == 9
    assert path.exists()
    async with asyncio.timeout(30):
        async with build_lock(path, never, stale_s=3600) as held:
            assert held
