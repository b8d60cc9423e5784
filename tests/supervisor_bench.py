"""What tests of the supervisor as a process share: its zipapp, real namespaces, a TLS peer, and a
fake Apptainer that only unshares a mount namespace, so that the container's root is this machine's.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan
from hpk.supervisor_zipapp import build_zipapp
from tests.supervisor_peer import Peer, container, write_attempt

FAKE_APPTAINER = f"""#!{sys.executable}
import csv, ctypes, os, sys
mounts = [sys.argv[n + 1] for n, word in enumerate(sys.argv) if word == "--mount"]
fields = [dict(item.partition("=")[::2] for item in next(csv.reader([text]))) for text in mounts]
pause = next(item["source"] for item in fields if item["destination"] == "/.hpk/pause")
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None) == 0  # MS_REC | MS_PRIVATE
os.execv(pause, ["/.hpk/pause"])
"""
PYTHON = os.environ.get("HPK_TEST_JOB_PYTHON", "/usr/bin/python3")
"""The interpreter of the supervisor; 3.9 is the oldest that must do."""


def userns_works() -> bool:
    return subprocess.run(["unshare", "-Urpf", "--mount-proc", "true"]).returncode == 0


@pytest.fixture(scope="session")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zipapp") / "supervisor.pyz"
    path.write_bytes(build_zipapp())
    return path


@dataclass
class Bench:
    """What a test needs to run one pod."""

    directory: Path
    zipapp: Path
    peer: Peer
    marker: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def attempt(self, *argv: str, name: str = "at t'empt", **changes: Any) -> AttemptLayout:
        plan_fields = {f for f in ContainerPlan.__dataclass_fields__ if f in changes}
        plan = container(argv, "/image.sif")
        plan = replace(plan, **{name: changes.pop(name) for name in plan_fields})
        return self.attempt_of(plan, name=name, **changes)

    def attempt_of(
        self, *plans: ContainerPlan, name: str = "at t'empt", **changes: Any
    ) -> AttemptLayout:
        """An attempt to run these containers."""
        image = self.directory / "image.sif"
        image.touch()  # the fake runtime does not look into it, but it is shown to it
        plans = tuple(_of_image(plan, str(image)) for plan in plans)
        if "init_containers" in changes:
            inits = changes["init_containers"]
            changes["init_containers"] = tuple(_of_image(plan, str(image)) for plan in inits)
        changes.setdefault("runtime_path", (str(self.directory / "bin"),))
        changes.setdefault("local_root", str(self.directory))
        return write_attempt(self.directory / name, self.peer, *plans, **changes)

    def start(self, layout: AttemptLayout, job_id: str = "77") -> subprocess.Popen[bytes]:
        with Path(layout.job_output).open("ab") as log:
            process = subprocess.Popen(
                [PYTHON, "-I", "-S", str(self.zipapp), "run", "--attempt-dir", layout.root],
                env={"SLURM_JOB_ID": job_id, "PATH": "/usr/bin:/bin", "MARKER": self.marker},
                stderr=log,
            )
        self.processes.append(process)
        return process

    def marked(self) -> list[int]:
        """Live processes of the tests' pods: they run in namespaces the supervisor made, under
        the marker, or hold the pod's name."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if self.marker.encode() in text:
                    found.append(int(entry.name))
        return found


def _of_image(plan: ContainerPlan, path: str) -> ContainerPlan:
    return replace(plan, image=replace(plan.image, path=path))


@pytest.fixture
def bench(tmp_path: Path, zipapp: Path) -> Iterator[Bench]:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apptainer"
    program.write_text(FAKE_APPTAINER)
    program.chmod(0o755)
    peer = Peer(tmp_path)
    made = Bench(tmp_path, zipapp, peer, f"marker-{secrets.token_hex(8)}")
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait()
        peer.close()
    wait_until(lambda: not made.marked())


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
