"""Images with the real Apptainer, the lab's registry, and jobs that run what was converted."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN

ROOT = Path(__file__).parents[2]
DIRECTORY = "/home/alice/hpk images 'test'"
PYTHON = "/opt/software/hpk/bin/python"
REGISTRY = "registry.lab:5000"
APPTAINER = "/opt/software/apptainer/bin/apptainer"
COUNTING_APPTAINER = f"""#!/bin/sh
case $* in *--help) ;; *) echo "$(hostname) $*" >> "$(dirname "$0")/calls" ;; esac
exec {APPTAINER} "$@"
"""
PROBE = """
import asyncio, dataclasses, json, sys
from pathlib import Path
from hpk.images.errors import ImageError
from hpk.images.manager import ImageManager
from hpk.images.settings import ImageSettings
from hpk.statefs import HpkPaths

async def main(reference, policy):
    root = Path.cwd()
    settings = ImageSettings(runtime_path=(root / "bin",), scratch=Path("/tmp"))
    manager = ImageManager(HpkPaths(home=root / "home", cache=root / "cache"), settings)
    try:
        answer = dataclasses.asdict(await manager.ensure(reference, pull_policy=policy))
    except ImageError as error:
        answer = {"reason": error.reason, "message": str(error)}
    finally:
        await manager.close()
    print(json.dumps(answer))

asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class Alice:
    """alice, in a directory of the shared file system that holds this checkout's hpk."""

    machine: Machine

    def run(
        self, argv: list[str], *, stdin: bytes = b"", check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        whole = self.machine.argv(LOGIN, argv, user=self.machine.lab.user("alice"))
        done = subprocess.run(whole, input=stdin, capture_output=True, timeout=180, check=False)
        if check and done.returncode != 0:
            pytest.fail(f"{argv}: {done.returncode}: {done.stdout!r} {done.stderr!r}")
        return done

    def here(self, argv: list[str], *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self.run(["env", "-C", DIRECTORY, *argv], check=check)

    def ensure(self, image: str, policy: str = "IfNotPresent") -> dict[str, Any]:
        done = self.here([PYTHON, "probe.py", f"{REGISTRY}/{image}", policy])
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def calls(self) -> list[str]:
        return self.here(["cat", "bin/calls"], check=False).stdout.decode().splitlines()


@pytest.fixture
def alice(machine: Machine) -> Iterator[Alice]:
    user = Alice(machine)
    user.run(["rm", "-rf", DIRECTORY])
    user.run(["mkdir", DIRECTORY])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted((ROOT / "hpk").rglob("*.py")):
            tar.add(path, str(path.relative_to(ROOT)))
        for name, text, mode in (
            ("probe.py", PROBE, 0o644),
            ("bin/apptainer", COUNTING_APPTAINER, 0o755),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text.encode()), mode
            tar.addfile(info, io.BytesIO(text.encode()))
    user.run(["tar", "-x", "--no-same-owner", "-C", DIRECTORY], stdin=buffer.getvalue())
    spaces = ["find", "/tmp", "-name", "hpk-image-*"]
    before = set(user.run(spaces).stdout.splitlines())
    try:
        yield user
        assert set(user.run(spaces).stdout.splitlines()) <= before
        assert user.here(["find", "cache", "-name", ".*"], check=False).stdout == b""
    finally:
        user.run(["rm", "-rf", DIRECTORY])


def test_what_is_converted_runs_in_a_job(alice: Alice) -> None:
    image = alice.ensure("entrypoint:latest")
    assert image["image_id"].startswith(f"{REGISTRY}/entrypoint@sha256:")
    assert image["config"]["user"] == "1234:2345"
    assert image["config"]["entrypoint"] == ["/usr/local/bin/tell"]
    assert image["passwd"].startswith("root:x:0:0:")
    done = alice.run(
        [
            "srun",
            "--ntasks=1",
            APPTAINER,
            "exec",
            "--cleanenv",
            image["path"],
            "/bin/busybox",
            "echo",
            "it",
            "ran",
        ]
    )
    assert done.stdout == b"it ran\n"


def test_what_is_known_is_converted_once(alice: Alice) -> None:
    first = alice.ensure("busybox")
    again = alice.ensure("busybox:latest")
    always = alice.ensure("busybox", "Always")
    assert first["path"] == again["path"] == always["path"]
    assert len(alice.calls()) == 1


def test_an_image_that_does_not_exist(alice: Alice) -> None:
    answer = alice.ensure("absent:1")
    assert answer["reason"] == "ErrImagePull"
    assert f'"{REGISTRY}/absent:1": not found' in answer["message"]
    assert alice.ensure("busybox:1", "Never")["reason"] == "ErrImageNeverPull"
    assert alice.calls() == []


def test_several_hosts_at_once_convert_once(alice: Alice) -> None:
    done = alice.here(
        [
            "srun",
            "--nodes=4",
            "--ntasks-per-node=1",
            "--export=ALL",
            PYTHON,
            "probe.py",
            f"{REGISTRY}/busybox:latest",
            "IfNotPresent",
        ]
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 4
    assert len({answer["path"] for answer in answers}) == 1, answers
    assert len(alice.calls()) == 1, alice.calls()
