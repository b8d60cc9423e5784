"""The one door to the shared file system, before a real one that hangs: a FIFO nobody writes to."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelet import shared_files
from kubelet.shared_files import SharedFiles, StalledError


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    """A file that is read only once the test is over."""
    path = tmp_path / "hung"
    os.mkfifo(path)
    yield path
    fd = os.open(path, os.O_RDWR)  # lets everybody through that waits to open it
    os.close(fd)


async def test_what_is_asked_is_answered_and_what_fails_fails(tmp_path: Path) -> None:
    files = SharedFiles(tmp_path)
    (tmp_path / "a").write_text("text")
    assert await files.do((tmp_path / "a").read_text) == "text"
    with pytest.raises(FileNotFoundError):
        await files.do((tmp_path / "b").read_text)
    assert files.problem == ""


async def test_one_that_hangs_is_given_up_and_hinders_nobody(tmp_path: Path, hung: Path) -> None:
    files = SharedFiles(tmp_path, threads=2)
    (tmp_path / "a").write_text("text")
    with pytest.raises(StalledError, match="has not answered"):
        await files.do(hung.read_text, deadline_s=0.05)
    for _ in range(3):
        assert await files.do((tmp_path / "a").read_text) == "text"


async def test_what_nobody_waits_for_any_more_is_not_begun(tmp_path: Path, hung: Path) -> None:
    files = SharedFiles(tmp_path, threads=1)
    with pytest.raises(StalledError):
        await files.do(hung.read_text, deadline_s=0.05)
    with pytest.raises(StalledError):
        await files.do((tmp_path / "late").write_text, "x", deadline_s=0.05)
    writer = os.open(hung, os.O_RDWR)
    try:
        os.write(writer, b"go on")
    finally:
        os.close(writer)
    assert await files.do((tmp_path / "late").exists) is False


async def test_reading_much_takes_half_of_the_threads_at_most(tmp_path: Path) -> None:
    files = SharedFiles(tmp_path, threads=4)
    gate, most, now = threading.Event(), 0, 0
    lock = threading.Lock()

    def read() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        gate.wait()
        with lock:
            now -= 1

    reads = [asyncio.ensure_future(files.do_bulk(read)) for _ in range(6)]
    # Behind six that hang, a write is done at once.
    assert await files.do((tmp_path / "a").write_text, "x") == 1
    gate.set()
    await asyncio.gather(*reads)
    assert most <= 2


async def test_reads_that_were_given_up_and_still_hang_take_no_more_threads(
    tmp_path: Path, hung: Path
) -> None:
    files = SharedFiles(tmp_path, threads=4, deadline_s=0.05)
    for _ in range(6):
        with pytest.raises(StalledError):
            await files.do_bulk(hung.read_text)
    written = files.do((tmp_path / "a").write_text, "x", deadline_s=30.0)
    assert await written == 1


async def test_what_is_done_in_turn_begins_when_the_one_before_has_really_ended(
    tmp_path: Path, hung: Path
) -> None:
    files = SharedFiles(tmp_path)
    done: list[str] = []
    begun = threading.Event()

    def first() -> None:
        begun.set()
        hung.read_text()
        done.append("first")

    giving_up = asyncio.ensure_future(files.do_in_turn("pod", first))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    giving_up.cancel()
    await asyncio.wait([giving_up])
    with pytest.raises(StalledError):
        await files.do_in_turn("pod", done.append, "given up", deadline_s=0.05)
    await files.do_in_turn("other", done.append, "other")
    second = asyncio.ensure_future(files.do_in_turn("pod", done.append, "second"))
    third = asyncio.ensure_future(files.do_in_turn("pod", done.append, "third"))
    os.close(os.open(hung, os.O_RDWR))
    await asyncio.gather(second, third)
    assert done == ["other", "first", "second", "third"]


async def test_a_stall_is_a_problem_until_it_is_over(
    tmp_path: Path, hung: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_files, "_STALLED_S", 0.0)
    files = SharedFiles(tmp_path)
    with pytest.raises(StalledError):
        await files.do(hung.read_text, deadline_s=0.05)
    assert "has not answered" in files.problem
    writer = os.open(hung, os.O_RDWR)
    os.close(writer)
    while files.problem:
        await asyncio.sleep(0.01)
