"""What is missing is said at once, all of it, before anything is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TOOLS = (
    *("awk", "bash", "cat", "df", "dirname", "env", "grep", "head", "id", "mount", "printf"),
    *("sed", "true", "unshare", "git", "make", "dpkg-query"),
)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory for PATH with the tools of the script, and no others."""
    made = tmp_path / "tools"
    made.mkdir()
    for name in TOOLS:
        if found := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"):
            # No link: what a test puts in its place would land in the machine's own.
            program(made / name, f'exec {found} "$@"')
    return made


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def preflight(tools: Path, **environment: str) -> tuple[int, list[str]]:
    """Its exit code, and what it says is missing, the first word of each."""
    done = subprocess.run(
        [str(CHECKOUT / "scripts/preflight")],
        env={"PATH": str(tools), **environment},
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    if done.returncode == 0:
        assert lines == []
        return 0, []
    assert lines[0] == "missing on this machine:", done.stderr
    assert all(line.startswith("  - ") for line in lines[1:]), done.stderr
    return done.returncode, [line.removeprefix("  - ") for line in lines[1:]]


def test_all_that_is_missing_is_said_together(tools: Path) -> None:
    program(tools / "id", "echo 1000")
    (tools / "git").unlink()
    code, missing = preflight(tools, PYTHON="/nonexistent/python")
    assert code == 1
    said = [line.split(":")[0] for line in missing]
    for what in ("root", "HOME", "apt-get", "Go 1.26 or newer", "git"):
        assert what in said
    assert any(
        line.startswith("Python 3.11 or newer, with venv, as /nonexistent") for line in missing
    )


@pytest.mark.parametrize(
    ("version", "fits"),
    [
        ("go1.25.9 linux/amd64", False),
        ("devel", False),
        ("go1.26.0 linux/amd64", True),
        ("go2.0 linux/arm64", True),
    ],
)
def test_an_old_go_is_named(tools: Path, tmp_path: Path, version: str, fits: bool) -> None:
    program(tools / "go", f'[ "$1" = env ] && echo {tmp_path} || echo "go version {version}"')
    _, missing = preflight(tools, HOME=str(tmp_path))
    assert fits is not any("Go 1.26" in line for line in missing)


def test_a_python_without_venv_is_named(tools: Path, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    program(bare, f'case "$2" in *ensurepip*) exit 1 ;; esac; exec {sys.executable} "$@"')
    _, missing = preflight(tools, HOME=str(tmp_path), PYTHON=str(bare))
    assert any("with venv" in line for line in missing)
    _, missing = preflight(tools, HOME=str(tmp_path), PYTHON=sys.executable)
    assert not any("with venv" in line for line in missing)


def test_a_full_disk_is_named_with_its_place(tools: Path, tmp_path: Path) -> None:
    program(tools / "df", "printf 'header\\nx 1 1 12 1 /\\n'")
    _, missing = preflight(tools, HOME=str(tmp_path))
    cache = tmp_path / ".cache/hpk"
    assert f"the cache ({cache}) has 12 MiB free and needs 6000: make room there" in missing


def test_a_home_that_is_none_is_named(tools: Path, tmp_path: Path) -> None:
    _, missing = preflight(tools, HOME=str(tmp_path / "none"))
    assert any(line.startswith(f"HOME: {tmp_path}/none is no directory") for line in missing)


def test_the_environment_of_another_python_is_made_anew(tmp_path: Path) -> None:
    """Debian's python3 was upgraded, and .venv/bin/python with it, under the packages' feet."""
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(CHECKOUT / "scripts/install-python", checkout / "scripts")
    calls = tmp_path / "calls"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    program(tmp_path / "uv", f'echo "$@" >>{calls}')
    program(
        tmp_path / "python",
        f'if [ "$1 $2" != "-m venv" ]; then exec {sys.executable} "$@"; fi\n'
        f"echo venv >>{calls}\n"
        f"mkdir -p .venv/bin .venv/lib/python{version}\n"
        f"cp {tmp_path}/uv .venv/bin/uv; cp {tmp_path}/uv .venv/bin/python",
    )

    def install() -> list[str]:
        calls.write_text("")
        subprocess.run(
            [str(checkout / "scripts/install-python")],
            env={**os.environ, "PYTHON": str(tmp_path / "python")},
            check=True,
        )
        return [line.split()[0] for line in calls.read_text().splitlines()]

    assert install() == ["venv", "-m", "sync"]
    assert install() == ["sync"]
    (checkout / f".venv/lib/python{version}").rename(checkout / ".venv/lib/python3.5")
    assert install() == ["venv", "-m", "sync"]
