"""A file system that stalls: what may run without its lock ends, and comes back by itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bootstrap import lock
from bootstrap.heart import Fence, Heart
from bootstrap.processes import ProcessId
from bootstrap.state import state_path
from bootstrap.tenure import Tenure
from hpk.durable import private_directory
from hpk.statefs import HpkPaths
from tests.waiting import eventually

Json = dict[str, Any]

MOUNTED = """
set -e
mkdir -p "$1/lower" "$1/upper" "$1/work" "$1/mnt"
fuse-overlayfs -f -o "lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" "$1/mnt" &
echo $!
until mountpoint -q "$1/mnt"; do sleep 0.05; done
shift
exec "$@"
"""

# The true supervising process; what it supervises are two programs that do nothing.
SUPERVISE = """
import asyncio, sys
from pathlib import Path
from bootstrap import lock, plan, rbac, readiness, supervise, tenure
from bootstrap.host import Ports
from bootstrap.plan import ComponentPlan
from bootstrap.site import Site
from hpk.config.schema import ControlPlaneConfig
from hpk.durable import private_directory
from hpk.model.errors import TransientError
from hpk.statefs import HpkPaths

lock.SELF_FENCE_S, lock.BEAT_S = float(sys.argv[1]), 0.1
supervise._FIRST_PAUSE_S = supervise._LONGEST_PAUSE_S = 600.0

async def ensure_all(paths, config, reporter):
    if (paths.home.parent.parent / "broken").exists():
        raise TransientError("cannot start now")
    return {}

def prepare(paths, config, programs):
    private_directory(paths.logs)
    return Site(paths=paths, address="127.0.0.1",
                ports=Ports(api=1, kubelet=2, channel=3, etcd=4, etcd_peer=5, dns=6),
                config=config, programs=programs, python="", environment={}, cpus=1,
                etcd_data=paths.home)

def components(site):
    return tuple(
        ComponentPlan(name=name, stage=stage, argv=("/bin/sleep", "1000"), environment={},
                      stop_timeout_s=5)
        for stage, name in enumerate(("first", "second")))

tenure.ensure_all, tenure.prepare, plan.components = ensure_all, prepare, components
readiness.checks = lambda site: {}
rbac.MANIFESTS = ()
tenure.manifests = lambda unsupported_fields: ()
tenure.missing_in_api = lambda client, components, *, since_s: ()
tenure.write_admin_kubeconfig = lambda site: None
sys.exit(supervise.main([]))
"""


class Supervised:
    """The supervising process of a home that lies on a FUSE file system."""

    def __init__(self, root: Path, fence_s: float) -> None:
        inner = [sys.executable, "-c", SUPERVISE, str(fence_s)]
        self.process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", MOUNTED, "sh", str(root), *inner],
            env={
                **os.environ,
                "HPK_HOME": str(root / "mnt" / "home"),
                "PYTHONPATH": str(Path.cwd()),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._server = int(self.process.stdout.readline())
        # What the file system keeps its files in: it shows them even while that one stalls.
        self.home = root / "upper" / "home"
        self.paths = HpkPaths(home=self.home, cache=root)

    def state(self) -> Json:
        try:
            found: Json = json.loads((self.home / "control-plane" / "state.json").read_text())
        except (OSError, ValueError):
            return {"generation": 0, "phase": "", "components": [], "interruptions": []}
        return found

    def running(self, generation: int) -> Json:
        def look() -> Json | None:
            state = self.state()
            assert self.process.poll() is None
            up = (state["generation"], state["phase"]) == (generation, "running")
            return state if up and all(one["pid"] for one in state["components"]) else None

        found = eventually(look, what=f"generation {generation} runs")
        assert found is not None
        return found

    def stall(self) -> None:
        """The file system answers nobody from now on."""
        os.kill(self._server, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._server, signal.SIGCONT)

    def close(self) -> str:
        self.process.kill()
        os.kill(self._server, signal.SIGKILL)  # a stopped one dies of it, too
        return self.process.communicate()[1]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def supervised(fence_s: float = 1.0) -> Supervised:
        made.append(Supervised(tmp_path, fence_s))
        return made[-1]

    yield supervised
    for one in made:
        print(one.close())


def _processes(state: Json) -> list[ProcessId]:
    return [ProcessId(pid=c["pid"], start_ticks=c["start_ticks"]) for c in state["components"]]


def _beats_on(plane: Supervised) -> None:
    beat = plane.paths.heartbeat.read_text()
    eventually(lambda: plane.paths.heartbeat.read_text() != beat, what="it beats on")


def test_after_a_stall_it_starts_again_as_the_next_generation(
    make: Callable[..., Supervised],
) -> None:
    plane = make()
    before = plane.running(1)
    began = time.time()
    plane.stall()
    eventually(
        lambda: not any(one.is_alive() for one in _processes(before)),
        what="nothing runs on without the lock",
    )
    assert plane.process.poll() is None
    plane.thaw()
    after = plane.running(2)
    assert {one.pid for one in _processes(after)}.isdisjoint(p.pid for p in _processes(before))
    assert all(one.is_alive() for one in _processes(after))
    (interruption,) = after["interruptions"]
    assert interruption["began_at_s"] < interruption["ended_at_s"]
    assert interruption["ended_at_s"] > began
    assert "does not answer" in interruption["why"]
    assert json.loads((plane.home / "endpoint.json").read_text())["generation"] == 2

    plane.process.send_signal(signal.SIGTERM)
    assert plane.process.wait(30) == 0
    holder = lock.read_holder(HpkPaths(home=plane.home, cache=plane.home))
    assert holder is None or holder.released


def test_one_that_was_followed_meanwhile_ends(make: Callable[..., Supervised]) -> None:
    plane = make()
    before = plane.running(1)
    plane.stall()
    eventually(
        lambda: not any(one.is_alive() for one in _processes(before)),
        what="nothing runs on without the lock",
    )
    # As another host would have, which saw the file system before we did.
    locks = plane.home / "lock"
    first = json.loads((locks / "1.json").read_text())
    first |= {"generation": 2, "identity": {**first["identity"], "host": "n9"}}
    (locks / "2.json").write_text(json.dumps(first))
    plane.thaw()
    assert plane.process.wait(60) == 1
    assert sorted(path.name for path in locks.glob("?.json")) == ["1.json", "2.json"]


def test_it_beats_on_between_two_tries_and_ends_when_it_is_followed(
    make: Callable[..., Supervised],
) -> None:
    plane = make()
    before = plane.running(1)
    plane.stall()
    eventually(
        lambda: not any(one.is_alive() for one in _processes(before)),
        what="nothing runs on without the lock",
    )
    (plane.home.parent.parent / "broken").touch()  # beside both views of the home
    plane.thaw()
    eventually(lambda: plane.state()["phase"] == "failed", what="a try that fails")
    for _ in range(3):
        _beats_on(plane)
    second = json.loads((plane.home / "lock" / "2.json").read_text())
    second |= {"generation": 3, "identity": {**second["identity"], "host": "n9"}}
    # Through the file system itself, which does not look again at what it keeps its files in.
    third = plane.home.parent.parent / "mnt" / "home" / "lock" / "3.json"
    enter = ["nsenter", f"--target={plane.process.pid}", "--user", "--mount"]
    subprocess.run(
        [*enter, "--preserve-credentials", "tee", str(third)],
        input=json.dumps(second).encode(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    assert plane.process.wait(60) == 1


async def test_one_that_was_followed_before_it_began_touches_nothing(tmp_path: Path) -> None:
    paths = HpkPaths(home=tmp_path / "home", cache=tmp_path)
    holder = await lock.acquire(paths, job_id=None)
    other = replace(holder, generation=2, identity=replace(holder.identity, host="n9"))
    (paths.lock / "2.json").write_text(other.dumps())
    private_directory(paths.control_plane)
    files = (paths.endpoint, paths.kubeconfig, state_path(paths))
    for path in files:
        path.write_text("the other's")
    tenure = Tenure(paths, holder, asyncio.Event())
    assert await tenure.run() is None
    tenure.close()
    assert tenure.fence is not None
    assert [path.read_text() for path in files] == ["the other's"] * len(files)


def test_it_can_be_stopped_while_it_waits(make: Callable[..., Supervised]) -> None:
    plane = make()
    before = plane.running(1)
    plane.stall()
    eventually(
        lambda: not any(one.is_alive() for one in _processes(before)),
        what="nothing runs on without the lock",
    )
    plane.process.send_signal(signal.SIGTERM)
    plane.thaw()
    assert plane.process.wait(60) == 0


def test_a_short_stall_changes_nothing(make: Callable[..., Supervised]) -> None:
    plane = make(fence_s=600.0)
    before = plane.running(1)
    plane.stall()
    time.sleep(0.5)
    plane.thaw()
    _beats_on(plane)
    after = plane.running(1)
    assert _processes(after) == _processes(before)
    assert after["interruptions"] == []


async def test_a_read_only_home_fences_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SELF_FENCE_S", 0.5)
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    paths = HpkPaths(home=tmp_path / "home", cache=tmp_path)
    holder = await lock.acquire(paths, job_id=None)
    fences: list[Fence] = []
    heart = Heart(paths, holder, on_beat=lambda: None, on_fence=fences.append)
    # A directory in its place cannot be opened for writing, by root either.
    paths.heartbeat.unlink()
    paths.heartbeat.mkdir()
    heart.start()
    eventually(lambda: fences, what="the fence")
    assert "could not be written" in fences[0].why
    heart.stop()


async def test_the_next_generation_is_taken_once(tmp_path: Path) -> None:
    paths = HpkPaths(home=tmp_path / "home", cache=tmp_path)
    first = await lock.acquire(paths, job_id=None)
    second = lock.retake(paths, first)
    assert second is not None
    assert second.generation == 2
    assert lock.retake(paths, first) == second, "a try whose answer was lost is repeated"
    lock.release(paths, second)
    assert lock.retake(paths, second) is None, "hpk down elsewhere said that it has ended"
