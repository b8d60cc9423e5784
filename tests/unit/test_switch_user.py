"""The program that stands for gosu: real user namespaces, no container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpk.supervisor.process.switch_user import switch_user_elf
from tests.supervisor_bench import userns_works

pytestmark = [
    pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="written for x86_64"),
]
PASSWD = """\
root:x:0:0:root:/root:/bin/sh
:x:7:7:nobody:/:/bin/sh
postgres:x:999:998:Data base:/var/lib/postgresql:/bin/bash
a line that is none
wrong:x:-1:99999999999:::
näme:x:4294967294:1::/home/näme:/bin/sh
"""
TELL = 'id -u; id -g; echo "$HOME"; cat /proc/self/setgroups; printf "%s\\n" "$@"'
NASTY = ["$(id)", "a b'\"", "-c", "", "zwei\nZeilen", "ü"]


def run(tmp_path: Path, *argv: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As root of a user namespace of one id, as in a container."""
    program = tmp_path / "gosu"
    elf = switch_user_elf("x86_64", PASSWD)
    assert elf is not None
    program.write_bytes(elf)
    program.chmod(0o755)
    words = ["unshare", "--user", "--map-root-user", "--", str(program), *argv]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("postgres", ["999", "998", "/var/lib/postgresql", "deny"]),
        ("999", ["999", "998", "/var/lib/postgresql", "deny"]),
        ("postgres:postgres", ["999", "998", "/var/lib/postgresql", "deny"]),
        ("999:998", ["999", "998", "/var/lib/postgresql", "deny"]),
        ("näme", ["4294967294", "1", "/home/näme", "deny"]),
        ("root", ["0", "0", "/root", "deny"]),
    ],
)
@pytest.mark.parametrize("shell", ["sh", "/bin/sh"])
def test_the_command_is_run_as_that_user(
    tmp_path: Path, user: str, ids: list[str], shell: str
) -> None:
    env = {"HOME": "/root", "PATH": "/nowhere:/usr/bin:/bin", "A": "b", "HOMER": "x"}
    done = run(tmp_path, user, shell, "-c", TELL, "sh", *NASTY, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{line}\n" for line in (*ids, *NASTY))


def test_the_environment_stays(tmp_path: Path) -> None:
    env = {"HOME": "/root", "PATH": "/usr/bin", "A": "$(b)\nc", "HOMER": "x", "PATHS": "y"}
    done = run(tmp_path, "postgres", "env", "-0", env=env)
    found = dict(item.split("=", 1) for item in done.stdout.rstrip("\0").split("\0"))
    assert found == {**env, "HOME": "/var/lib/postgresql"}


def test_what_was_roots_is_the_users(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    script = 'stat -c %u:%g "$1" && echo text > "$1/file" && stat -c %u "$1/file"'
    done = run(tmp_path, "postgres", "sh", "-c", script, "sh", str(data), env={"PATH": "/usr/bin"})
    assert done.stdout.split() == ["999:998", "999"], done.stderr


@pytest.mark.parametrize("argv", [("nobody", "true"), ("wrong", "true"), ("postgres",), ()])
def test_a_user_it_does_not_know_is_told(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = run(tmp_path, *argv, env={"PATH": "/usr/bin"})
    assert done.returncode == 1
    assert "set runAsUser" in done.stderr


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program"])
@pytest.mark.parametrize("env", [{"PATH": "/usr/bin:"}, {}])
def test_a_program_that_is_not_there(tmp_path: Path, command: str, env: dict[str, str]) -> None:
    done = run(tmp_path, "postgres", command, env=env)
    assert done.returncode == 127
    assert "cannot be started" in done.stderr


def test_other_machines_have_none() -> None:
    assert switch_user_elf("aarch64", PASSWD) is None
