"""What others rely on is there whole or not at all, whatever the disk does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpk.durable import append_line, claim, private_directory, write_atomically
from hpk.flock import exclusive_lock, open_lock, try_lock
from hpk.model.errors import PermanentError

# RLIMIT_FSIZE makes the kernel do what a full disk or a quota does: write(2) takes what fits,
# the next one fails.
_APPEND_WITH_ROOM_FOR = """
import resource, signal, sys
from hpk.durable import append_line
room, path, line = int(sys.argv[1]), sys.argv[2], sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
try:
    append_line(path, line)
except OSError as error:
    print("not written:", error.strerror)
"""


def append_with_room_for(room: int, path: Path, line: str) -> str:
    argv = [sys.executable, "-c", _APPEND_WITH_ROOM_FOR, str(room), str(path), line]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_line_is_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert append_with_room_for(100, path, "first") == ""
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("room", [6, 8, 12])
def test_a_line_for_which_there_is_no_room_is_an_error_and_leaves_nothing(
    tmp_path: Path, room: int
) -> None:
    path = tmp_path / "journal"
    append_line(path, "first")
    assert append_with_room_for(room, path, "second").startswith("not written:")
    assert path.read_text() == "first\n"
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_what_a_crash_left_of_a_line_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("first\nsec")
    append_line(path, "third")
    assert path.read_text() == "first\nsec\nthird\n"


def test_two_lines_are_not_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one line"):
        append_line(tmp_path / "journal", "a\nb")
    assert not (tmp_path / "journal").exists()


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "journal").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        append_line(tmp_path / "journal", "line")


def test_a_file_that_cannot_be_replaced_stays_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(path, b"data")
    assert list(tmp_path.iterdir()) == [path]


def test_only_one_can_take_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert claim(path, "supervisor 1")
    assert claim(path, "supervisor 1")
    assert not claim(path, "revoked")
    assert path.read_text() == "supervisor 1"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_directory_is_private_with_all_it_lacked(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert made == tmp_path / "a" / "b"
    assert {p.stat().st_mode & 0o777 for p in (made, made.parent)} == {0o700}
    made.chmod(0o755)
    private_directory(str(made))
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_strangers_link_is_no_private_directory(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PermanentError, match="link"):
        private_directory(tmp_path / "link")


def test_a_lock_is_one_holders_and_goes_with_him(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = open_lock(path)
    try:
        with exclusive_lock(path):
            assert not try_lock(other)
            assert not try_lock(other, shared=True)
        assert try_lock(other, shared=True)
    finally:
        os.close(other)
