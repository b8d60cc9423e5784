"""A home that hangs: a command says so and ends, instead of waiting with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpk.cli import home
from hpk.model.errors import TransientError

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="a hung home is served by FUSE"
)


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[Path]:
    source, mountpoint = tmp_path / "source", tmp_path / "home"
    (source / ".hpk").mkdir(parents=True)
    mountpoint.mkdir()
    argv = [sys.executable, "-m", "tests.chaos.slow_home", str(source), str(mountpoint)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdin is not None
        assert served.stdout is not None
        assert served.stdout.readline() == "mounted\n"
        served.stdin.write("stall 3600\n")
        served.stdin.flush()
        try:
            yield mountpoint
        finally:
            served.kill()  # which lets go of whoever waits for it
            served.wait()
            subprocess.run(["umount", "-l", str(mountpoint)], check=True)


def test_a_home_that_hangs_is_named(hung: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "PATIENCE_S", 0.4)
    monkeypatch.setattr(home, "_SAY_AFTER_S", 0.2)
    said: list[str] = []
    with pytest.raises(TransientError, match="did not answer") as raised:
        while True:  # until the stall has begun
            home.require_answer(hung / ".hpk", said.append)
    assert str(hung) in raised.value.message
    assert said == [f"{hung / '.hpk'} does not answer, wait for it …"]


def test_a_home_that_is_not_there_yet_is_no_reason_to_wait(tmp_path: Path) -> None:
    said: list[str] = []
    home.require_answer(tmp_path / "none", said.append)
    assert said == []
