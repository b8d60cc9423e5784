"""`hpk doctor`: the judgement of each check."""

from __future__ import annotations

import json

import pytest

from hpk.model.codec import dumps
from hpk.report.doctor.evaluate import as_text, evaluate, is_fit
from hpk.report.doctor.facts import Accounting, Facts, Fuse, JobEnd, Quota
from hpk.report.doctor.findings import Status
from hpk.report.doctor.parsing import parse_report
from tests.doctor_site import (
    COMMANDS,
    EXCHANGE,
    GIB,
    HEALTHY,
    JOB,
    LOGIN,
    MAIN,
    REPORT,
    answered,
    exchange,
    finding,
    home,
    job,
    limits,
    login,
    node,
    replace,
    slurm,
)


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
        (node(to_login="Connection refused"), "node-to-login", WARNING, False),
        (exchange(from_node=False), "node-to-login", WARNING, False),
        (exchange(from_node=False, to_node="refused"), "node-to-login", FAILED, True),
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
