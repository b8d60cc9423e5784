"""Judges what login node and compute node did together. Pure."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from hpk.report.doctor.facts import Exchange, Facts, JobEnd, JobFacts, NodeReport
from hpk.report.doctor.findings import IN_A_JOB, Check, Finding, Place
from hpk.report.doctor.node_checks import CHECKS, judge_node
from hpk.report.doctor.parsing import filesystem_of, shown

_SLOW_S = 5.0
_SKEW_S = 2.0
_LOCKED = ("EAGAIN", "EACCES")
_TOGETHER = (
    ("shared-home", "shared $HPK_HOME"),
    ("flock", "flock across hosts"),
    ("link", "link across hosts"),
    ("node-to-login", "port, node → login node"),
    ("login-to-node", "port, login node → node"),
    ("clocks", "clocks"),
)


def judge_job(facts: Facts) -> tuple[Finding, ...]:
    """The job itself, then everything that only a job can tell."""
    first = _job(facts.job)
    report, exchange = facts.job.report, facts.job.exchange
    if report is None or exchange is None:
        why = "the job has not told it" if facts.job.job_id else "no job has run"
        skipped = [_check(name, title, Place.BOTH).skipped(why) for name, title in _TOGETHER]
        if facts.job.end is JobEnd.UNSEEN:
            skipped[0] = _unseen(facts.job)
        return (
            first,
            *skipped,
            *(_check(name, title, Place.NODE).skipped(why) for name, title in CHECKS),
        )
    judges: dict[str, Callable[[Check], Finding]] = {
        "shared-home": lambda check: _shared(check, report, exchange),
        "flock": lambda check: _flock(check, exchange),
        "link": lambda check: _link(check, exchange),
        "node-to-login": lambda check: _to_login(check, report, exchange, facts.login.address),
        "login-to-node": lambda check: _to_node(check, report, exchange),
        "clocks": lambda check: _clocks(check, exchange),
    }
    together = (judges[name](_check(name, title, Place.BOTH)) for name, title in _TOGETHER)
    return (first, *together, *judge_node(report, facts.login.slurm))


def _check(name: str, title: str, place: Place) -> Check:
    return Check(name=name, place=place, title=title)


def _job(job: JobFacts) -> Finding:
    check = _check("job", "a job", Place.BOTH)
    if job.end is JobEnd.NOT_ASKED:
        return check.skipped(job.problem, ask="run `hpk doctor` without --no-job")
    if job.end is JobEnd.REFUSED:
        return check.failed(
            shown(job.problem),
            costs="Slurm would refuse Pods in the same way",
            ask="correct [slurm] of config.toml, or choose with --partition",
            essential=True,
        )
    if job.end is JobEnd.NOT_STARTED:
        return check.skipped(
            f"job {job.job_id} had not started after {job.waited_s:.0f} s: {shown(job.problem)}",
            ask="wait longer with --timeout SECONDS, or choose another --partition",
        )
    if job.end is JobEnd.BROKEN:
        return check.failed(
            f"job {job.job_id}: {shown(job.problem, 500)}",
            costs="Pods' jobs would end likewise",
            ask="see what it says; HPK needs Python 3.9 or later on compute nodes",
            essential=True,
        )
    if job.end is JobEnd.UNSEEN:
        return check.ok(f"job {job.job_id} ran: {shown(job.problem)}")
    return check.ok(f"job {job.job_id} reported {job.waited_s:.1f} s after its submission")


def _unseen(job: JobFacts) -> Finding:
    return _check(*_TOGETHER[0], Place.BOTH).failed(
        f"job {job.job_id}, {shown(job.problem)}: none of its files is seen here",
        costs="Pods do not work: jobs find their instructions in $HPK_HOME",
        ask="set HPK_HOME to a directory that login and compute nodes share",
        essential=True,
    )


def _shared(check: Check, report: NodeReport, exchange: Exchange) -> Finding:
    kind = shown(filesystem_of(report.mounts, report.directory), 40) or "unknown file system"
    delays = [one.answered_s - one.asked_s for one in exchange.rounds]
    if len(delays) < 3:
        return check.failed(
            f"{kind}: the node stopped answering after {len(delays)} of 3 files",
            costs="jobs do not see what is written for them, or not within a minute",
            ask="set HPK_HOME to a directory that login and compute nodes share",
            essential=True,
        )
    seen = (
        f"{kind}: a file goes there and back in {median(delays):.2f} s, at worst {max(delays):.2f}"
    )
    if max(delays) > _SLOW_S:
        return check.warning(
            seen,
            costs="where the ports do not work Pods start and stop that much later",
            ask="ask for a shorter attribute cache (actimeo) of the file system, or set HPK_HOME "
            "to another",
        )
    return check.ok(seen)


def _flock(check: Check, exchange: Exchange) -> Finding:
    if len(exchange.rounds) < 3:
        return check.skipped("the node stopped answering")
    refused, granted = exchange.rounds[0].pong.locked, exchange.rounds[1].pong.locked
    said = f"held here, there: {shown(refused, 40)}; free: {shown(granted, 40)}; held there, "
    said += f"here: {exchange.locked_here}"
    if refused in _LOCKED and granted == "done" and exchange.locked_here in _LOCKED:
        return check.ok("refused while the other host holds it, granted when it is free")
    return check.warning(
        said,
        costs="two control planes of one $HPK_HOME on different hosts are told apart by their "
        "heartbeat alone",
        ask="ask for a mount with locks (NFS: without nolock; Lustre: flock, not localflock)",
    )


def _link(check: Check, exchange: Exchange) -> Finding:
    if not exchange.rounds:
        return check.skipped("the node stopped answering")
    there, here = exchange.rounds[0].pong.linked, exchange.linked_here
    if (there, here) == ("EEXIST", "EEXIST"):
        return check.ok("a name taken on one host is refused on the other")
    return check.failed(
        f"a name taken here, there: {shown(there, 40)}; taken there, here: {shown(here, 40)}",
        costs="a Pod's claim is not exclusive: a job that Slurm starts twice could run it twice",
        ask="set HPK_HOME to a file system with hard links",
        essential=True,
    )


def _to_login(check: Check, report: NodeReport, exchange: Exchange, address: str) -> Finding:
    if not address:
        return check.skipped("the login node has no address for compute nodes")
    if report.to_login or not exchange.from_node:
        seen = f"{shown(report.host, 60)} → {address}: {shown(report.to_login) or 'never arrived'}"
        ask = (
            "ask that compute nodes reach ports 20000–32000 of login nodes, set another "
            f"address in [control-plane], or {IN_A_JOB}"
        )
        if not exchange.to_node:
            return check.warning(
                seen,
                costs="no API server inside Pods; the kubelet dials their supervisors instead",
                ask=ask,
            )
        return check.failed(
            seen,
            costs="the channel of each Pod's supervisor: no Secrets, no logs of running Pods, and "
            "no API server inside Pods",
            ask=ask,
            essential=True,
        )
    return check.ok(f"{shown(report.host, 60)} → {address}")


def _to_node(check: Check, report: NodeReport, exchange: Exchange) -> Finding:
    where = shown(report.address, 60) or shown(report.host, 60)
    if exchange.to_node:
        return check.warning(
            f"{where}: {shown(exchange.to_node)}",
            costs="servers in Pods are reached from the login node through the channel alone",
            ask="ask that login nodes reach ports of compute nodes; `hpk up` in a job avoids it",
        )
    return check.ok(where)


def _clocks(check: Check, exchange: Exchange) -> Finding:
    if not exchange.rounds:
        return check.skipped("the node stopped answering")
    best = min(exchange.rounds, key=lambda one: one.answered_s - one.asked_s)
    margin = (best.answered_s - best.asked_s) / 2
    skew = best.pong.time_s - (best.asked_s + best.answered_s) / 2
    seen = f"the node's is {skew:+.2f} s off, ±{max(margin, 0.01):.2f}"
    if abs(skew) - margin > _SKEW_S:
        return check.warning(
            seen,
            costs="times of containers and logs are wrong, and certificates may not be valid yet",
            ask="ask whether NTP runs on login and compute nodes",
        )
    return check.ok(seen)
