"""`hpk doctor`: the judgement of each check, hostile answers, and the probe as a real process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hpk.model.codec import dumps
from hpk.model.errors import ParseError
from hpk.model.job import Partition
from hpk.model.plan import SbatchOption
from hpk.render import render_probe_script
from hpk.report.doctor import parsing, probe
from hpk.report.doctor.evaluate import as_text, evaluate, is_fit
from hpk.report.doctor.facts import (
    Accounting,
    Exchange,
    Facts,
    Fuse,
    JobEnd,
    JobFacts,
    LoginFacts,
    NodeReport,
    Pong,
    ProcessLimits,
    Program,
    Quota,
    Round,
    SlurmFacts,
    Space,
)
from hpk.report.doctor.findings import Finding, Status
from hpk.report.doctor.meeting import Doorbell, Tokens, converse, read_file, read_report
from hpk.report.doctor.parsing import parse_pong, parse_report

GIB = 1 << 30
MAIN = Partition(
    name="main",
    is_default=True,
    is_up=True,
    nodes=("n1",),
    max_time_s=None,
    default_time_s=None,
    default_memory_per_cpu_bytes=None,
    default_memory_per_node_bytes=None,
    total_cpus=4,
    total_memory_bytes=GIB,
    gpus=0,
    max_node_cpus=4,
    max_node_memory_bytes=GIB,
    max_node_gpus=0,
    features=(),
)
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sacct", "sacctmgr")
SLURM = SlurmFacts(
    commands={name: f"/usr/bin/{name}" for name in COMMANDS},
    version="22.05.8",
    config={"KillWait": "30 sec", "AccountingStorageEnforce": "associations,limits"},
    partitions=(MAIN,),
    accounting=Accounting(accounts=("users",), default_account="users"),
    mpi=("pmix", "none"),
)
LOGIN = LoginFacts(
    host="login",
    address="10.0.0.1",
    slurm=SLURM,
    converter="/usr/bin/apptainer",
    proxies={},
    spaces=(
        Space(variable="$HPK_HOME", path="/h", filesystem="nfs4", free_bytes=50 * GIB),
        Space(variable="$HPK_CACHE", path="/c", filesystem="nfs4", free_bytes=50 * GIB),
    ),
    limits=ProcessLimits(
        nofile=65536, nproc=-1, cpu_s=-1, address_space_bytes=-1, memory_bytes=-1, tasks=-1
    ),
)
REPORT = NodeReport(
    host="n1",
    node="n1",
    address="10.0.0.2",
    port=4711,
    to_login="",
    python="3.11.2",
    hpk_python="Python 3.11.2",
    kernel="6.1.0-18-amd64",
    has_cgroup2=True,
    fuse=Fuse(mode=0o666, error=""),
    namespaces_step="",
    namespaces_error="",
    namespace_limits=(),
    programs=(
        Program(name="apptainer", path="/usr/bin/apptainer", version="apptainer version 1.4.3"),
        Program(name="podman", path="/usr/bin/podman", version="podman version 4.3.1"),
        Program(name="crun", path="/usr/bin/crun", version="crun version 1.8"),
        Program(name="unsquashfs", path="/usr/bin/unsquashfs", version=""),
    ),
    mpi="MPI plugin types are...\n\tpmix\n\tnone\nspecific pmix plugin versions available: pmix_v4",
    nofile=65536,
    nproc=-1,
    scratch="/tmp",
    scratch_free_bytes=50 * GIB,
    mounts="20 1 0:1 / / rw - ext4 /dev/a rw\n21 20 0:2 / /tmp rw - xfs /dev/b rw",
    directory="/h/doctor/x",
)


def answered(at_s: float, locked: str, linked: str = "", *, skew_s: float = 0) -> Round:
    pong = Pong(time_s=at_s + 0.05 + skew_s, locked=locked, linked=linked)
    return Round(asked_s=at_s, answered_s=at_s + 0.1, pong=pong)


EXCHANGE = Exchange(
    rounds=(answered(1000, "EAGAIN", "EEXIST"), answered(1001, "done"), answered(1002, "")),
    from_node=True,
    to_node="",
    locked_here="EAGAIN",
    linked_here="EEXIST",
)
JOB = JobFacts(end=JobEnd.REPORTED, job_id=7, waited_s=2, report=REPORT, exchange=EXCHANGE)
HEALTHY = Facts(login=LOGIN, job=JOB)

replace: Callable[..., Any] = dataclasses.replace


def slurm(**changes: Any) -> Facts:
    return Facts(login=replace(LOGIN, slurm=replace(SLURM, **changes)), job=JOB)


def login(**changes: Any) -> Facts:
    return Facts(login=replace(LOGIN, **changes), job=JOB)


def limits(**changes: Any) -> Facts:
    return login(limits=replace(LOGIN.limits, **changes))


def home(**changes: Any) -> Facts:
    return login(spaces=(replace(LOGIN.spaces[0], **changes), LOGIN.spaces[1]))


def node(**changes: Any) -> Facts:
    return Facts(login=LOGIN, job=replace(JOB, report=replace(REPORT, **changes)))


def exchange(**changes: Any) -> Facts:
    return Facts(login=LOGIN, job=replace(JOB, exchange=replace(EXCHANGE, **changes)))


def job(end: JobEnd, problem: str = "") -> Facts:
    return Facts(login=LOGIN, job=JobFacts(end=end, problem=problem, job_id=7))


def finding(facts: Facts, check: str) -> Finding:
    (found,) = [one for one in evaluate(facts) if one.check == check]
    return found


def test_a_healthy_site_has_nothing_to_say() -> None:
    found = evaluate(HEALTHY)
    assert {one.status for one in found} == {Status.OK}
    assert len({one.check for one in found}) == len(found)
    assert is_fit(found)
    assert f"{len(found)} ok, 0 warning, 0 failed, 0 skipped" in as_text(HEALTHY, found)


OK, WARNING, FAILED, SKIPPED = Status
NO_APPTAINER = tuple(one for one in REPORT.programs if one.name != "apptainer")
CLOSED = Fuse(mode=0o600, error="Permission denied")


@pytest.mark.parametrize(
    ("facts", "check", "status", "essential"),
    [
        (slurm(commands={}), "slurm-commands", FAILED, True),
        (slurm(commands=dict.fromkeys(COMMANDS[:5], "x")), "slurm-commands", WARNING, False),
        (slurm(version="19.05.2"), "slurm-version", FAILED, True),
        (slurm(version="20.11.9"), "slurm-version", OK, False),
        (slurm(controller="Slurmctld(primary) at x is DOWN"), "slurmctld", FAILED, True),
        (slurm(controller="x"), "partitions", SKIPPED, False),
        (slurm(controller="x"), "accounting", SKIPPED, False),
        (slurm(accounting=Accounting(enabled=False)), "accounting", WARNING, False),
        (slurm(accounting=Accounting(problem="refused")), "accounting", WARNING, False),
        (slurm(accounting=Accounting(accounts=("a",))), "account", FAILED, True),
        (slurm(accounting=Accounting(accounts=("a",)), account="a"), "account", OK, False),
        (slurm(account="other"), "account", FAILED, True),
        (slurm(accounting=Accounting(), config={}), "account", OK, False),
        (slurm(partitions=()), "partitions", FAILED, True),
        (slurm(partition="gone"), "partitions", FAILED, True),
        (slurm(partitions=(replace(MAIN, is_up=False),)), "partitions", WARNING, False),
        (slurm(partitions=(replace(MAIN, is_default=False),)), "partitions", WARNING, False),
        (slurm(config={"KillWait": "3 sec"}), "kill-wait", WARNING, False),
        (slurm(config={"KillWait": "soon"}), "kill-wait", SKIPPED, False),
        (login(address="", address_problem="none"), "address", FAILED, True),
        (login(converter=""), "image-converter", FAILED, False),
        (login(proxies={"https_proxy": "http://p:1"}), "proxies", WARNING, False),
        (login(proxies={"https_proxy": "x"}, no_proxy="10.0.0.0/8"), "proxies", OK, False),
        (login(etcd_problem="no flock"), "etcd-data", FAILED, True),
        (login(kills_at_logout=True), "logout", WARNING, False),
        (login(kills_at_logout=True, lingers=True), "logout", OK, False),
        (limits(memory_bytes=GIB), "memory-limit", WARNING, False),
        (limits(memory_bytes=GIB // 2), "memory-limit", FAILED, False),
        (limits(address_space_bytes=4 * GIB), "memory-limit", WARNING, False),
        (limits(tasks=50), "process-limits", FAILED, False),
        (limits(nproc=200), "process-limits", WARNING, False),
        (limits(cpu_s=3600), "process-limits", WARNING, False),
        (limits(nofile=1024), "process-limits", WARNING, False),
        (home(problem="not yours"), "home-space", FAILED, True),
        (home(free_bytes=10 << 20), "home-space", FAILED, True),
        (home(free_bytes=500 << 20), "home-space", WARNING, False),
        (home(free_inodes=100), "home-space", WARNING, False),
        (
            login(
                quotas=(Quota(filesystem="h", used_kib=95, limit_kib=100, files=1, files_limit=0),)
            ),
            "quotas",
            WARNING,
            False,
        ),
        (node(hpk_python=""), "python", FAILED, True),
        (node(namespaces_step="unshare"), "user-namespaces", FAILED, True),
        (node(fuse=CLOSED), "fuse", FAILED, False),
        (node(fuse=CLOSED), "runtimes", WARNING, False),
        (node(fuse=CLOSED, programs=REPORT.programs[:1]), "fuse", FAILED, True),
        (node(fuse=CLOSED, programs=REPORT.programs[:1]), "runtimes", FAILED, True),
        (node(programs=()), "runtimes", FAILED, True),
        (node(programs=NO_APPTAINER), "runtimes", WARNING, False),
        (node(has_cgroup2=False), "cgroups", WARNING, False),
        (node(mpi="srun: none\nsrun: pmi2"), "mpi", FAILED, False),
        (node(mpi=""), "mpi", OK, False),
        (node(scratch_free_bytes=-1), "scratch", FAILED, True),
        (node(scratch_free_bytes=GIB), "scratch", WARNING, False),
        (node(nofile=256), "node-limits", WARNING, False),
        (node(to_login="Connection refused"), "node-to-login", FAILED, True),
        (exchange(from_node=False), "node-to-login", FAILED, True),
        (exchange(to_node="No route to host"), "login-to-node", WARNING, False),
        (exchange(rounds=EXCHANGE.rounds[:1]), "shared-home", FAILED, True),
        (exchange(rounds=()), "clocks", SKIPPED, False),
        (exchange(locked_here="done"), "flock", WARNING, False),
        (
            exchange(rounds=(answered(1, "done", "EEXIST"), *EXCHANGE.rounds[1:])),
            "flock",
            WARNING,
            False,
        ),
        (exchange(linked_here="done"), "link", FAILED, True),
        (exchange(linked_here="EPERM"), "link", FAILED, True),
        (exchange(rounds=(answered(1, "", skew_s=-9),)), "clocks", WARNING, False),
        (
            exchange(rounds=(*EXCHANGE.rounds[:2], replace(answered(1, ""), answered_s=40))),
            "shared-home",
            WARNING,
            False,
        ),
        (job(JobEnd.REFUSED, "Invalid account"), "job", FAILED, True),
        (job(JobEnd.NOT_STARTED, "PENDING (Resources)"), "job", SKIPPED, False),
        (job(JobEnd.NOT_ASKED), "fuse", SKIPPED, False),
        (job(JobEnd.BROKEN, "python3: not found"), "job", FAILED, True),
        (job(JobEnd.UNSEEN, "FAILED on n1"), "shared-home", FAILED, True),
    ],
)
def test_each_miss_is_told(facts: Facts, check: str, status: Status, essential: bool) -> None:
    found = finding(facts, check)
    assert (found.status, found.essential) == (status, essential), found
    if status in (WARNING, FAILED):
        assert found.seen
        assert found.costs
        assert found.ask
    everything = evaluate(facts)
    assert {one.check for one in everything} == {one.check for one in evaluate(HEALTHY)}
    if essential:
        assert not is_fit(everything)


def test_a_queue_that_does_not_move_tells_how_to_wait_longer() -> None:
    found = finding(job(JobEnd.NOT_STARTED, "PENDING (Resources)"), "job")
    assert "PENDING (Resources)" in found.seen
    assert "--timeout" in found.ask
    assert is_fit(evaluate(job(JobEnd.NOT_STARTED)))


def test_a_sysctl_that_forbids_user_namespaces_is_named() -> None:
    limit = {"name": "user.max_user_namespaces", "value": "0"}
    text = json.loads(dumps(REPORT)) | {"namespace_limits": [limit], "namespaces_step": "unshare"}
    report = parse_report(json.dumps(text).encode())
    found = finding(Facts(login=LOGIN, job=replace(JOB, report=report)), "user-namespaces")
    assert "user.max_user_namespaces above 0" in found.ask


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
