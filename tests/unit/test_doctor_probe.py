"""`hpk doctor`: the probe as a real process, and the script that starts it."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpk.model.errors import ParseError
from hpk.model.plan import SbatchOption
from hpk.render import render_probe_script
from hpk.report.doctor import probe
from hpk.report.doctor.facts import Facts, NodeReport
from hpk.report.doctor.findings import Status
from hpk.report.doctor.meeting import Doorbell, Tokens, converse, read_report
from tests.doctor_site import JOB, LOGIN, finding, replace


def test_the_probe_parses_on_an_old_python() -> None:
    ast.parse(Path(probe.__file__).read_text(), feature_version=(3, 6))


def test_a_nasty_home_stays_a_path_in_the_script(tmp_path: Path) -> None:
    home = tmp_path / "a 'b' \"c\" $(touch pwned) #d"
    home.mkdir()
    seen = home / "probe.py"
    seen.write_text("import sys\nprint(sys.argv[1])\n")
    options = (SbatchOption("output", str(home / "job.log"), "doctor"),)
    script = render_probe_script(
        options, python=str(home / "no python"), probe=str(seen), directory=str(home)
    )
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == f"{home}\n"
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(ParseError, match="control characters"):
        render_probe_script(
            (SbatchOption("output", "a\n#SBATCH --uid=0", "doctor"),),
            python="/p",
            probe="/p",
            directory="/d",
        )


PATIENCE_S = 120


@contextlib.asynccontextmanager
async def probing(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, NodeReport]]:
    """A probe that runs in this directory, and what it has reported; it is not there afterwards."""
    argv = [sys.executable, "-I", "-S", probe.__file__, str(directory)]
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (report := read_report(directory)) is None:
                assert process.returncode is None, "the probe has ended without a report"
                await asyncio.sleep(0.02)
        yield process, report
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_probe_and_this_side_speak(tmp_path: Path) -> None:
    """Both ends on one host: what is refused across hosts is refused between processes too."""
    tokens, directory = Tokens(), tmp_path / "meeting 'place'"
    directory.mkdir()
    bell = Doorbell(tokens)
    async with bell.open("127.0.0.1"):
        request = dataclasses.asdict(tokens) | {
            "address": "127.0.0.1",
            "port": bell.port,
            "python": sys.executable,
            "runtime_path": [],
            "programs": ["sh", "no-such-program"],
            "versions_of": [],
            "limit_s": 60,
        }
        (directory / "request.json").write_text(json.dumps(request))
        (directory / "lock").touch()
        async with probing(directory) as (_, report):
            talk = await converse(directory, report, tokens, bell)
    assert [one.name for one in report.programs] == ["sh"]
    assert report.hpk_python.startswith("Python 3.")
    assert (report.to_login, talk.from_node, talk.to_node) == ("", True, "")
    facts = Facts(login=LOGIN, job=replace(JOB, report=report, exchange=talk))
    for check in ("shared-home", "flock", "link", "node-to-login", "login-to-node", "clocks"):
        assert finding(facts, check).status is Status.OK


async def test_a_probe_whose_directory_goes_ends(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    request = dataclasses.asdict(Tokens()) | {
        "address": "127.0.0.1",
        "port": 1,
        "python": "/no/python",
        "runtime_path": [],
        "programs": [],
        "versions_of": [],
        "limit_s": 600,
    }
    (directory / "request.json").write_text(json.dumps(request))
    (directory / "lock").touch()
    async with probing(directory) as (process, report):
        assert report.to_login
        assert report.hpk_python == ""
        assert process.returncode is None
        directory.rename(tmp_path / "elsewhere")
