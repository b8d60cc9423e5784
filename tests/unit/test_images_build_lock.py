"""The lock on a conversion: held while its owner beats, broken when the owner is dead."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hpk.images.build_lock import build_lock


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


async def test_a_file_system_that_stalls_stops_no_event_loop(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    moved_on = threading.Event()

    def stalled() -> bool:
        asked.set()
        return moved_on.wait(60)

    asked = threading.Event()
    async with build_lock(path, never):
        waiting = asyncio.create_task(_held(path, stalled))
        while not asked.is_set():
            await asyncio.sleep(0.01)
        moved_on.set()  # never, if the loop waited for it
        assert await waiting is False


async def test_who_is_cancelled_while_taking_it_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for _ in range(20):
        taking = asyncio.create_task(_held(path, never))
        await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        assert not path.exists()


async def _held(path: Path, is_done: Callable[[], bool]) -> bool:
    async with build_lock(path, is_done, poll_s=0.01) as held:
        return held
