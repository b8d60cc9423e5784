"""The lock: one holder, whatever died, wherever it ran."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap import lock
from bootstrap.host import Identity
from bootstrap.lock import Holder
from bootstrap.processes import ProcessId
from hpk.durable import private_directory, write_atomically
from hpk.model.errors import ParseError, PermanentError
from hpk.statefs import HpkPaths

ELSEWHERE = Identity(host="n9", boot_id="another", pid_namespace="pid:[1]")
TAKE = """
import asyncio, sys
from bootstrap import lock
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths
async def main():
    try:
        holder = await lock.acquire(HpkPaths.from_environment(), job_id=None)
    except PermanentError as error:
        print("refused", flush=True)
    else:
        print("taken", holder.generation, flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    return HpkPaths(home=tmp_path / "a b'c$(x)", cache=tmp_path / "cache")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "STALE_S", 0.5)


def _taker(paths: HpkPaths) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TAKE],
        env={"HPK_HOME": str(paths.home), "HOME": "/nonexistent"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _close(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


def _foreign(paths: HpkPaths, generation: int = 1, *, released: bool = False) -> Holder:
    """A holder on another host, as it would have written itself."""
    holder = Holder(
        generation=generation,
        identity=ELSEWHERE,
        process=ProcessId(pid=1, start_ticks=1),
        job_id=7,
        started_at_s=0.0,
        released=released,
    )
    private_directory(paths.lock)
    write_atomically(paths.lock / f"{generation}.json", holder.dumps())
    return holder


def test_of_many_at_once_one_succeeds(paths: HpkPaths) -> None:
    takers = [_taker(paths) for _ in range(4)]
    try:
        assert sorted(_said(taker) for taker in takers) == ["refused"] * 3 + ["taken 1"]
    finally:
        _close(*takers)


def test_a_killed_holder_is_followed_at_once(paths: HpkPaths) -> None:
    first = _taker(paths)
    assert _said(first) == "taken 1"
    _close(first)
    second = _taker(paths)
    try:
        assert _said(second) == "taken 2"
    finally:
        _close(second)
    assert [path.name for path in paths.lock.glob("*.json")] == ["2.json"]


async def test_released_is_free_and_counts_on(paths: HpkPaths) -> None:
    first = await lock.acquire(paths, job_id=None)
    lock.release(paths, first)
    second = await lock.acquire(paths, job_id=3)
    assert (first.generation, second.generation, second.job_id) == (1, 2, 3)


async def test_a_holder_elsewhere_that_beats_is_respected(paths: HpkPaths, quick: None) -> None:
    holder = _foreign(paths)

    async def beat() -> None:
        for sequence in range(1000):
            lock.beat(paths, holder, sequence)
            await asyncio.sleep(0.05)

    beating = asyncio.create_task(beat())
    try:
        with pytest.raises(PermanentError, match=r"host n9 in Slurm job 7.*hpk down"):
            await lock.acquire(paths, job_id=None)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def test_a_holder_elsewhere_that_is_silent_is_fenced(paths: HpkPaths, quick: None) -> None:
    dead = _foreign(paths)
    assert lock.beat(paths, dead, 1)
    waits: list[float] = []
    ours = await lock.acquire(paths, job_id=None, waiting=waits.append)
    assert ours.generation == 2
    assert waits
    assert not lock.beat(paths, dead, 2), "a fenced holder must be told"
    assert lock.beat(paths, ours, 1)


async def test_a_fenced_holder_cannot_release_its_successor(paths: HpkPaths, quick: None) -> None:
    dead = _foreign(paths)
    ours = await lock.acquire(paths, job_id=None)
    lock.release(paths, dead)
    assert lock.read_holder(paths) == ours


async def test_a_reused_pid_is_not_the_holder(paths: HpkPaths) -> None:
    mine = await lock.acquire(paths, job_id=None)
    other = dataclasses.replace(
        mine, process=ProcessId(pid=mine.process.pid, start_ticks=mine.process.start_ticks - 1)
    )
    assert await lock.is_alive(paths, mine)
    assert not await lock.is_alive(paths, other)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"generation": "x"}'])
def test_a_lock_that_is_none_is_named(paths: HpkPaths, text: str) -> None:
    private_directory(paths.lock)
    (paths.lock / "3.json").write_text(text)
    with pytest.raises(PermanentError, match=r"3\.json"):
        lock.read_holder(paths)
    with pytest.raises(ParseError):
        Holder.loads(text)


def test_other_files_are_no_generations(paths: HpkPaths) -> None:
    assert lock.read_holder(paths) is None
    private_directory(paths.lock)
    for name in (".5.json.ab", "x.json", "²³.json", "7.json~"):
        (paths.lock / name).touch()
    assert lock.read_holder(paths) is None
