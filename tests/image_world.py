"""An image cache and its managers, with a fake apptainer for the runtime.

The fake makes a real squashfs in a SIF file, so that everything around it is the real thing; the
lab's tests use the real apptainer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from hpk.images.manager import ImageManager, ImageSettings
from hpk.statefs import HpkPaths
from tests.image_registry import GROUP, PASSWD

FAKE_APPTAINER = r"""#!/usr/bin/python3 -I
import os, pathlib, struct, subprocess, sys, time
here = pathlib.Path(__file__).resolve().parent
if sys.argv[1:] == ["build", "--help"]:
    print("" if (here / "old").exists() else "  --mksquashfs-args string")
    sys.exit()
with open(here / "calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
if (here / "no-zstd").exists() and "zstd" in " ".join(sys.argv):
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
