"""A log's offsets mean the same byte to the supervisor and to who reads the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk.model.log_files import LogFile, file_at, log_files, rotated_name
from hpk.model.record import SupervisorRecord
from hpk.supervisor.container import crilog
from kubelet.container_log import ContainerLog
from kubelet.link.session import Session
from kubelet.server.backend import LogGoneError
from kubelet.shared_files import SharedFiles
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
    for number in range(90):
        made.append(line(number))
        wait_until(lambda number=number: made.end > number * SIZE)  # type: ignore[misc]
    yield made
    made.close()
    made.join(60)


def on_disk(tmp_path: Path) -> ContainerLog:
    def nobody() -> Session | None:
        return None

    def no_record() -> SupervisorRecord | None:
        return None

    return ContainerLog(
        files=SharedFiles(tmp_path),
        root=tmp_path,
        log_path="logs/main/0.log",
        container="main",
        session=nobody,
        record=no_record,
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


def test_a_log_is_removed_with_all_its_files(writer: crilog.LogWriter, tmp_path: Path) -> None:
    assert len(list((tmp_path / "logs" / "main").iterdir())) == 3
    writer.remove()
    assert list((tmp_path / "logs" / "main").iterdir()) == []
