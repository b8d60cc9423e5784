"""`hpk doctor`: what a node, Slurm and other programs print, hostile answers included."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpk.model.codec import dumps
from hpk.model.errors import ParseError
from hpk.report.doctor import parsing
from hpk.report.doctor.evaluate import as_text, evaluate
from hpk.report.doctor.facts import Facts, Fuse, Program, Quota
from hpk.report.doctor.meeting import read_file
from hpk.report.doctor.parsing import parse_pong, parse_report
from tests.doctor_site import EXCHANGE, JOB, LOGIN, REPORT, SLURM, answered, replace

NASTY = "\x1b[2J\r\n\x07\u202e" + "x" * 5000


def test_no_answer_reaches_the_terminal_as_more_than_text() -> None:
    report = replace(
        REPORT,
        host=NASTY,
        python=NASTY,
        hpk_python=NASTY,
        kernel=NASTY,
        namespaces_step=NASTY,
        namespaces_error=NASTY,
        to_login=NASTY,
        mpi=NASTY,
        scratch=NASTY,
        fuse=Fuse(mode=0, error=NASTY),
        programs=(Program(name="apptainer", path="/a", version=NASTY),),
    )
    rounds = (answered(1, NASTY, NASTY), answered(2, NASTY), answered(3, NASTY))
    talk = replace(EXCHANGE, rounds=rounds, to_node=NASTY)
    facts = Facts(
        login=replace(
            LOGIN,
            host=NASTY,
            converter=NASTY,
            address_problem=NASTY,
            slurm=replace(SLURM, controller=NASTY, version=NASTY, account=NASTY),
        ),
        job=replace(JOB, report=report, exchange=talk),
    )
    text = as_text(facts, evaluate(facts))
    assert all(line.isprintable() for line in text.splitlines())
    assert max(len(line) for line in text.splitlines()) < 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 70000),
        ("port", "80"),
        ("port", True),
        ("fuse", None),
        ("fuse", {"mode": -1, "error": ""}),
        ("address", "example.org"),
        ("address", "-oProxyCommand=x"),
        ("programs", {}),
        ("programs", [{"name": "apptainer"}]),
        ("nofile", 1.5),
    ],
)
def test_a_report_of_another_form_is_refused(field: str, value: Any) -> None:
    data = json.loads(dumps(REPORT))
    assert parse_report(json.dumps(data).encode()) == REPORT
    with pytest.raises(ParseError, match=field):
        parse_report(json.dumps(data | {field: value}).encode())


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"time_s": NaN, "locked": "", "linked": ""}']
)
def test_an_answer_of_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(ParseError):
        parse_pong(text)


def test_files_of_another_kind_are_not_read(tmp_path: Path) -> None:
    assert read_file(tmp_path / "none") is None
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "long").write_bytes(b"x" * (1 << 20))
    for name in ("pipe", "link", "long"):
        with pytest.raises(ParseError, match=name):
            read_file(tmp_path / name)


def test_parsers_take_what_programs_print() -> None:
    assert parsing.parse_mpi(REPORT.mpi) == ("pmix", "none", "pmix_v4")
    old = "srun: MPI types are...\nsrun: none\nsrun: pmix_v3\n"
    assert parsing.parse_mpi(old) == ("none", "pmix_v3")
    quota = (
        "Disk quotas for user a (uid 1): \n"
        "     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace\n"
        "srv:/home 900*     800     1000  6days      7       0       0\n"
        "srv:/work   5        0        0            9*      8       8   none\n"
        "nonsense 1 2\n"
    )
    assert parsing.parse_quota(quota) == (
        Quota(filesystem="srv:/home", used_kib=900, limit_kib=1000, files=7, files_limit=0),
        Quota(filesystem="srv:/work", used_kib=5, limit_kib=0, files=9, files_limit=8),
    )
    config = "Configuration data as of X\nKillWait      = 30 sec\nX Y = 1\nKillWait = 9\n"
    assert parsing.parse_config(config) == {"KillWait": "30 sec"}
    assert parsing.parse_default_account("a|b\nb|b\n") == (("a", "b"), "b")
    assert parsing.without_password("http://me:secret@proxy:3128") == "http://proxy:3128"
    assert parsing.without_password("me:secret@proxy:3128") == "proxy:3128"
    assert parsing.covers("localhost,10.1.0.0/16", "10.1.2.3")
    assert not parsing.covers("localhost,10.1.0.0/33,.org", "10.1.2.3")
    mounts = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /a\\040b rw shared:1 - nfs4 s:/x rw\nbad"
    assert parsing.filesystem_of(mounts, "/a b/c") == "nfs4"
    assert parsing.filesystem_of(mounts, "/a bc") == "ext4"
