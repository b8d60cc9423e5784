"""A log's offsets mean the same byte to the supervisor and to who reads the disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpk.model.log_files import LogFile, file_at, log_files, rotated_name
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState, SupervisorRecord
from hpk.supervisor.container import crilog
from kubelet.container_log import ContainerLog
from kubelet.file_looks import FileLooks
from kubelet.link.session import Session
from kubelet.server.backend import LogGoneError, LogUnavailableError
from kubelet.shared_files import SharedFiles, StalledError
from tests.records import a_record
from tests.supervisor_bench import wait_until


def line(number: int) -> bytes:
    return b"2026-01-02T03:04:05.000000000Z stdout F %04d\n" % number


SIZE = len(line(0))


def test_the_files_of_a_log_in_their_order() -> None:
    entries = [
        ("0.log", 5),
        (rotated_name("0.log", "20260102-030406", 700), 300),
        ("0.log.tmp", 9),
        (rotated_name("0.log", "20260102-030405", 0), 700),
        ("10.log.20260102-030405.0", 1),
    ]
    files = log_files("0.log", entries)
    assert [file.start for file in files] == [0, 700, 1000]
    assert files[-1] == LogFile(1000, "0.log")
    assert [file_at(files, offset).start for offset in (0, 699, 700, 5000)] == [0, 0, 700, 1000]
    assert log_files("0.log", ()) == (LogFile(0, "0.log"),)


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[crilog.LogWriter]:
    """A log of 20 lines to a file, of which 3 files are kept."""
    monkeypatch.setattr(crilog, "MAX_FILE_BYTES", 20 * SIZE)
    monkeypatch.setattr(crilog, "MAX_FILES", 3)
    made = crilog.LogWriter(str(tmp_path / "logs" / "main" / "0.log"), lambda: None)
    grow(made, 0, 90)
    yield made
    made.close()
    made.join(60)


def on_disk(
    tmp_path: Path, *, files: SharedFiles | None = None, runs: bool = False
) -> ContainerLog:
    def nobody() -> Session | None:
        return None

    def record() -> SupervisorRecord | None:
        state = ContainerState(phase=ContainerPhase.RUNNING, started_at_s=1.0)
        main = ContainerRecord("main", state, None, 0, "c-0", "logs/main/0.log")
        return a_record(containers=(main,)) if runs else None

    files = files or SharedFiles(tmp_path)
    return ContainerLog(
        files=files,
        looks=FileLooks(files),
        root=tmp_path,
        log_path="logs/main/0.log",
        container="main",
        session=nobody,
        record=record,
    )


async def test_whoever_goes_on_from_the_disk_misses_nothing(
    writer: crilog.LogWriter, tmp_path: Path
) -> None:
    log = on_disk(tmp_path)
    assert await log.size() == writer.end == 90 * SIZE
    offset, taken = 60 * SIZE, b""
    while offset < writer.end:
        data, _ = await log.read(offset, wait=False)
        assert writer.read(offset, len(data)) == (offset, data)
        offset, taken = offset + len(data), taken + data
    assert taken == b"".join(map(line, range(60, 90)))
    assert await log.read(offset, wait=False) == (b"", True)


async def test_what_was_rotated_away_is_gone_on_both_ways(
    writer: crilog.LogWriter, tmp_path: Path
) -> None:
    first, _ = writer.read(0, 1)
    with pytest.raises(LogGoneError) as gone:
        await on_disk(tmp_path).read(0, wait=False)
    assert gone.value.offset == first == 40 * SIZE


def grow(log: crilog.LogWriter, first: int, beyond: int) -> None:
    for number in range(first, beyond):
        log.append(line(number))
        wait_until(lambda number=number: log.end > number * SIZE)  # type: ignore[misc]


def test_a_reader_who_comes_back_finds_what_follows_however_far_the_log_has_gone(
    writer: crilog.LogWriter, tmp_path: Path
) -> None:
    offset, data = writer.read(60 * SIZE, 5 * SIZE)
    assert (offset, data) == (60 * SIZE, b"".join(map(line, range(60, 65))))
    grow(writer, 90, 290)
    taken, offset = b"", 65 * SIZE
    while offset < writer.end:
        start, data = writer.read(offset, 7 * SIZE)
        assert start == offset
        offset, taken = offset + len(data), taken + data
    assert taken == b"".join(map(line, range(65, 290)))
    grow(writer, 290, 311)
    assert len(list((tmp_path / "logs" / "main").iterdir())) == 3


def test_what_is_being_read_is_not_rotated_away(
    writer: crilog.LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes on for many files between the opening of one and the end of reading it."""
    writer.read(60 * SIZE, 5 * SIZE)
    real_open, opened = open, []

    def open_then_rotate(*args: Any, **kwargs: Any) -> Any:
        opened.append(real_open(*args, **kwargs))
        if len(opened) == 1:
            grow(writer, 90, 190)
        return opened[-1]

    monkeypatch.setattr(crilog, "open", open_then_rotate, raising=False)
    assert writer.read(65 * SIZE, 5 * SIZE)[0] == 65 * SIZE
    assert writer.read(70 * SIZE, SIZE) == (70 * SIZE, line(70))


def test_of_two_readers_at_one_place_each_is_waited_for(writer: crilog.LogWriter) -> None:
    for _ in range(2):
        writer.read(60 * SIZE, 5 * SIZE)
    writer.read(65 * SIZE, 15 * SIZE)
    grow(writer, 90, 190)
    assert writer.read(65 * SIZE, SIZE) == (65 * SIZE, line(65))


def test_what_is_kept_for_readers_has_its_limit(
    writer: crilog.LogWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crilog, "MAX_READ_FILES", 5)
    writer.read(40 * SIZE, SIZE)
    grow(writer, 90, 201)
    assert len(list((tmp_path / "logs" / "main").iterdir())) == 5


def test_a_reader_who_does_not_come_back_is_not_waited_for(
    writer: crilog.LogWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crilog, "READER_PATIENCE_S", 0.0)
    writer.read(40 * SIZE, SIZE)
    grow(writer, 90, 201)
    assert len(list((tmp_path / "logs" / "main").iterdir())) == 3


def test_a_rotation_under_a_readers_hands_gives_it_no_other_bytes(
    writer: crilog.LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is rotated away, and another grows in its place, just before it is opened."""
    real_open, opened = open, []

    def rotate_then_open(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        if len(opened) == 1:
            grow(writer, 90, 120)
        return real_open(*args, **kwargs)

    monkeypatch.setattr(crilog, "open", rotate_then_open, raising=False)
    assert writer.read(82 * SIZE, 3 * SIZE) == (82 * SIZE, b"".join(map(line, range(82, 85))))
    assert len(opened) == 2


async def test_whoever_follows_on_the_disk_sees_what_comes(
    writer: crilog.LogWriter, tmp_path: Path
) -> None:
    log = on_disk(tmp_path, runs=True)
    reading = asyncio.ensure_future(log.read(90 * SIZE, wait=True))
    await asyncio.sleep(0)
    writer.append(line(90))
    assert await reading == (line(90), False)


async def test_a_file_system_that_stalls_is_waited_for_by_those_who_follow(
    writer: crilog.LogWriter, tmp_path: Path
) -> None:
    files = SharedFiles(tmp_path, threads=2, deadline_s=0.1)
    log = on_disk(tmp_path, files=files, runs=True)
    gate = threading.Event()
    stalled = asyncio.ensure_future(files.do_bulk(gate.wait))
    try:
        with pytest.raises(StalledError):
            await stalled
        with pytest.raises(LogUnavailableError, match="has not answered"):
            await log.read(0, wait=False)
        reading = asyncio.ensure_future(log.read(89 * SIZE, wait=True))
        await asyncio.wait([reading], timeout=0.3)
        assert not reading.done()
    finally:
        gate.set()
    assert await reading == (line(89), False)


async def test_those_who_wait_for_one_file_look_once(tmp_path: Path) -> None:
    looks = FileLooks(SharedFiles(tmp_path))
    first, second = (asyncio.ensure_future(looks.next(tmp_path / "log")) for _ in range(2))
    await asyncio.sleep(0)
    assert len(looks._looks) == 1
    first.cancel()
    assert await second is None
    (tmp_path / "log").write_text("x")
    found = await looks.next(tmp_path / "log")
    assert found is not None
    assert found[1] == 1


def test_a_log_that_somebody_has_removed_is_no_log_without_news(
    writer: crilog.LogWriter, tmp_path: Path
) -> None:
    (tmp_path / "logs" / "main" / "0.log").unlink()
    with pytest.raises(FileNotFoundError):
        writer.read(82 * SIZE, SIZE)
    assert writer.read(90 * SIZE, SIZE) == (90 * SIZE, b"")


def test_a_log_is_removed_with_all_its_files(writer: crilog.LogWriter, tmp_path: Path) -> None:
    assert len(list((tmp_path / "logs" / "main").iterdir())) == 3
    writer.remove()
    assert list((tmp_path / "logs" / "main").iterdir()) == []
