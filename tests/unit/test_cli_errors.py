"""What a user reads when a command fails."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bootstrap.lab import software
from hpk.cli.errors import Failure, explain
from hpk.model.errors import PermanentError, TransientError

NO_UV = PermanentError("there is no uv", remedy="scripts/install-python")
FULL = OSError(errno.ENOSPC, "No space left on device", "/home/alice/.hpk/lock")


async def failing(error: BaseException) -> None:
    raise error


async def in_a_group(*errors: BaseException) -> None:
    async with asyncio.TaskGroup() as outer:
        for error in errors:
            outer.create_task(failing(error))
        outer.create_task(asyncio.sleep(3600))


def group_of(*errors: BaseException) -> BaseException:
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(in_a_group(*errors))
    return BaseExceptionGroup("around it", [caught.value])


def test_an_error_of_a_task_is_said_as_if_it_stood_alone() -> None:
    assert explain(group_of(NO_UV)) == explain(NO_UV)
    assert explain(NO_UV) == Failure(
        message="there is no uv", remedy="scripts/install-python", exit_code=1
    )


def test_what_several_tasks_say_is_said_once_each() -> None:
    errors = (TransientError("n1 is down"), NO_UV, TransientError("n1 is down"), FULL)
    said = explain(group_of(*errors))
    assert said.message == (
        "n1 is down; there is no uv; /home/alice/.hpk/lock: No space left on device"
    )
    assert said.remedy == "scripts/install-python"


def test_an_interrupt_is_no_error() -> None:
    assert explain(BaseExceptionGroup("g", [NO_UV, KeyboardInterrupt()])).exit_code == 130
    assert explain(click.Abort()).exit_code == 130


def test_a_full_disk_and_one_that_may_not_be_written_name_their_remedy() -> None:
    assert "make room" in explain(FULL).remedy
    denied = PermissionError(errno.EACCES, "Permission denied", "/root/.hpk")
    assert explain(denied).message == "/root/.hpk: Permission denied"
    assert "HPK_HOME" in explain(denied).remedy


def test_a_fault_of_ours_is_called_one() -> None:
    said = explain(ValueError("a\nb"))
    assert said.message == "a fault of hpk itself: ValueError: a b"
    assert "HPK_DEBUG=1" in said.remedy


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_the_traceback_is_there_for_whoever_asks(tmp_path: Path) -> None:
    broken = tmp_path / "config.toml"
    broken.write_text("no toml")
    program = "import sys; sys.argv[1:] = ['config', 'show']; from hpk.cli.main import main; main()"
    plain = run(program, HPK_HOME=str(tmp_path))
    debug = run(program, HPK_HOME=str(tmp_path), HPK_DEBUG="1")
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert plain.stderr.startswith(f"hpk: {broken}: ")
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_a_python_that_is_too_old_says_so() -> None:
    done = run("import sys; sys.version_info = (3, 9, 2); import hpk.cli.main")
    assert done.returncode == 1
    assert done.stderr.startswith("hpk: this is Python 3.9, and hpk needs 3.11")


@pytest.mark.parametrize("redirect", ["/dev/full", "| true"])
def test_output_that_cannot_be_written_is_no_traceback(redirect: str) -> None:
    hpk = Path(sys.executable).with_name("hpk")
    shell = f"{hpk} config show {'>' if '|' not in redirect else ''} {redirect}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_uv_is_the_one_that_set_up_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(software.find_uv()) == Path(sys.prefix) / "bin/uv"


def test_without_any_uv_the_script_that_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(software, "_CHECKOUT", tmp_path)
    with pytest.raises(PermanentError, match="scripts/install-python"):
        software.find_uv()
