"""The batch script: how values reach #SBATCH lines and shell text."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import ParseError
from hpk.model.ids import PodRef, PodUid
from hpk.model.layout import AttemptLayout
from hpk.model.plan import PodPlan, RestartPolicy, SbatchOption
from hpk.render import directive, file_pattern, render_script

NASTY = "/home/a b'c\"d#e\\f%g-é$(touch x)`touch y`;z"
PLAN = PodPlan(
    pod=PodRef("default", "web", PodUid("u-1")),
    partition="main",
    options=(
        SbatchOption("ntasks", "4", "test"),
        SbatchOption("comment", "a # b \"c\" 'd' \\ $(e) `f`", "test"),
        SbatchOption("no-requeue", None, "test"),
    ),
    containers=(),
    volumes=(),
    restart_policy=RestartPolicy.NEVER,
    grace_period_s=30,
    active_deadline_s=None,
    runtime="apptainer",
)


def script(root: str, python: str = "/usr/bin/python3", supervisor: str = "/s.pyz") -> str:
    return render_script(
        PLAN,
        job_name="default/web@0123456789abcdef",
        layout=AttemptLayout(root),
        python=python,
        supervisor=supervisor,
    )


@pytest.mark.parametrize(
    ("path", "pattern"),
    [("/a b", "/a b"), ("/a%j", "/a%%j"), ("/a\\b%j", "/a\\\\b%j")],
)
def test_file_patterns_stand_for_one_path(path: str, pattern: str) -> None:
    assert file_pattern(path) == pattern


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "--x"),
        ("gpu:a100:2", "--x=gpu:a100:2"),
        ("a b", '--x="a b"'),
        ("a#b", '--x="a#b"'),
        ('a"b\\c', '--x="a\\"b\\\\c"'),
        ("", '--x=""'),
        ("é", '--x="é"'),
    ],
)
def test_directives(value: str | None, line: str) -> None:
    assert directive(SbatchOption("x", value, "test")) == line


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028"])
def test_no_directive_holds_a_control_character(char: str) -> None:
    with pytest.raises(ParseError):
        directive(SbatchOption("x", f"a{char}#SBATCH --uid=0", "test"))


def test_a_directive_that_sbatch_would_cut_short_is_refused() -> None:
    with pytest.raises(ParseError):
        directive(SbatchOption("x", "a" * 5000, "test"))


@given(st.text(max_size=50))
def test_a_directive_is_one_line(value: str) -> None:
    try:
        line = directive(SbatchOption("x", value, "test"))
    except ParseError:
        return
    assert len(line.splitlines()) <= 1


def test_every_directive_stands_before_the_first_command() -> None:
    lines = script("/home/alice").splitlines()
    first_command = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    assert not any(line.startswith("#SBATCH") for line in lines[first_command:])
    assert lines[first_command] == "set -euo pipefail"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize(
    ("root", "exclude"),
    # With "$" in a path shellcheck wonders whether it was meant to expand. It was not.
    [("/home/alice/.hpk/x", ""), (NASTY, "SC2016")],
)
def test_shellcheck_has_nothing_to_say(root: str, exclude: str, tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(script(root, python=root + "/python", supervisor=root + "/s.pyz"))
    argv = ["shellcheck", f"--exclude={exclude}", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)


def test_bash_hands_every_word_over_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "a b'c\"d#e\\f%g-é$(touch canary)`touch canary`;touch canary\nnewline"
    home.mkdir()
    python = home / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$@" "$SLURM_EXPORT_ENV" > "$0.out"\n')
    python.chmod(0o700)
    body = script("/r", python=str(python), supervisor=str(home / "s.pyz"))
    path = tmp_path / "script.sh"
    path.write_text(body)
    subprocess.run(["bash", path], check=True, cwd=tmp_path)
    words = (home / "python.out").read_text().split("\0")
    expected = ["-I", "-S", str(home / "s.pyz"), "run", "--attempt-dir", "/r", "ALL", ""]
    assert words == expected
    assert not (tmp_path / "canary").exists()
