"""Judges what the login node offers a control plane. Pure."""

from __future__ import annotations

from collections.abc import Callable

from hpk.report.doctor.facts import UNLIMITED, LoginFacts, Space
from hpk.report.doctor.findings import IN_A_JOB, Check, Finding, Place
from hpk.report.doctor.parsing import covers, shown

_MIB, _GIB = 1 << 20, 1 << 30
_HOME_LEAST, _HOME_ENOUGH = 100 * _MIB, _GIB
_CACHE_LEAST, _CACHE_ENOUGH = 500 * _MIB, 5 * _GIB
_INODES_ENOUGH = 10_000
_MEMORY_LEAST, _MEMORY_ENOUGH = 700 * _MIB, 1536 * _MIB
"""Resident: API server 290 MB, controller manager 112, scheduler 65, etcd 48, and the kubelet."""
_TASKS_LEAST, _TASKS_ENOUGH = 100, 400
_FILES_ENOUGH = 4096
_ADDRESS_SPACE_ENOUGH = 16 * _GIB
"""Go reserves far more than it uses, and etcd maps its whole store."""


def judge_login(facts: LoginFacts) -> tuple[Finding, ...]:
    """One finding for each check, in the order they are shown."""
    spaces = tuple(_space(space) for space in facts.spaces)
    return (*(judge(facts) for judge in _CHECKS), *spaces, _quotas(facts))


def _address(facts: LoginFacts) -> Finding:
    check = Check(name="address", place=Place.LOGIN, title="address for compute nodes")
    if not facts.address:
        return check.failed(
            shown(facts.address_problem),
            costs="the control plane does not start",
            ask="set address in [control-plane] of config.toml",
            essential=True,
        )
    return check.ok(facts.address)


def _converter(facts: LoginFacts) -> Finding:
    check = Check(name="image-converter", place=Place.LOGIN, title="Apptainer for images")
    if not facts.converter:
        return check.failed(
            "neither apptainer nor singularity is on PATH",
            costs="images of registries cannot be fetched; SIF files and directories can be run",
            ask="load its module, set runtime-path in [images] of config.toml, or ask for Apptainer"
            " on login nodes",
        )
    return check.ok(shown(facts.converter))


def _proxies(facts: LoginFacts) -> Finding:
    check = Check(name="proxies", place=Place.LOGIN, title="proxies")
    if not facts.proxies:
        return check.ok("none is set")
    seen = shown(", ".join(f"{name}={url}" for name, url in facts.proxies.items()))
    if facts.address and not covers(facts.no_proxy, facts.address):
        return check.warning(
            f"{seen}; no_proxy does not name {facts.address}",
            costs="kubectl and other clients look for the API server behind the proxy",
            ask=f"export no_proxy=${{no_proxy:+$no_proxy,}}{facts.address}",
        )
    return check.ok(seen)


def _etcd(facts: LoginFacts) -> Finding:
    check = Check(name="etcd-data", place=Place.LOGIN, title="etcd's data in $HPK_HOME")
    if facts.etcd_problem:
        return check.failed(
            shown(facts.etcd_problem),
            costs="the control plane does not start",
            ask="set etcd-data in [control-plane] of config.toml to a directory on a local disk",
            essential=True,
        )
    if any(space.problem for space in facts.spaces[:1]):
        return check.skipped("$HPK_HOME cannot be used")
    return check.ok("flock and shared mmap work")


def _memory(facts: LoginFacts) -> Finding:
    check = Check(name="memory-limit", place=Place.LOGIN, title="memory limit")
    memory = facts.limits.memory_bytes
    if memory != UNLIMITED and memory < _MEMORY_ENOUGH:
        seen = f"{memory // _MIB} MiB for all your processes here"
        costs = "the control plane needs some 600 MiB, kubelet and your own programs apart"
        if memory < _MEMORY_LEAST:
            return check.failed(seen, costs=costs, ask=IN_A_JOB)
        return check.warning(seen, costs=costs, ask=IN_A_JOB)
    space = facts.limits.address_space_bytes
    if space != UNLIMITED and space < _ADDRESS_SPACE_ENOUGH:
        return check.warning(
            f"ulimit -v is {space // _MIB} MiB",
            costs="programs written in Go reserve more than that, and die",
            ask=f"`ulimit -v unlimited` before `hpk up`, or {IN_A_JOB}",
        )
    return check.ok("none" if memory == UNLIMITED else f"{memory // _MIB} MiB")


def _processes(facts: LoginFacts) -> Finding:
    check = Check(name="process-limits", place=Place.LOGIN, title="limits on processes")
    limits = facts.limits
    known = [n for n in (limits.nproc, limits.tasks) if n != UNLIMITED]
    tasks = min(known, default=UNLIMITED)
    seen = f"{_count(tasks)} threads, {_count(limits.nofile)} open files"
    if limits.cpu_s != UNLIMITED:
        return check.warning(
            f"{seen}; {limits.cpu_s} s of CPU time",
            costs="the kernel kills each of the control plane's processes when it has used that",
            ask=f"`ulimit -t unlimited` if it lets you; else {IN_A_JOB}",
        )
    if tasks != UNLIMITED and tasks < _TASKS_ENOUGH:
        costs = "API server, etcd and the others have some 100 threads together"
        if tasks < _TASKS_LEAST:
            return check.failed(seen, costs=costs, ask=IN_A_JOB)
        return check.warning(seen, costs=costs, ask=IN_A_JOB)
    if limits.nofile != UNLIMITED and limits.nofile < _FILES_ENOUGH:
        return check.warning(
            seen,
            costs="each Pod that runs holds some connections: hundreds of Pods do not fit",
            ask=f"ask for a hard nofile limit of {_FILES_ENOUGH} or more, or {IN_A_JOB}",
        )
    return check.ok(seen)


def _count(number: int) -> str:
    return "unlimited" if number == UNLIMITED else str(number)


def _logout(facts: LoginFacts) -> Finding:
    check = Check(name="logout", place=Place.LOGIN, title="processes after logout")
    if facts.kills_at_logout is None:
        return check.ok("no logind that could end them; whether the site does is not to be seen")
    if facts.kills_at_logout and not facts.lingers:
        return check.warning(
            "logind has KillUserProcesses=yes, and you do not linger",
            costs="the control plane ends when you log out; its Pods' jobs go on",
            ask=f"`loginctl enable-linger`, or {IN_A_JOB}",
        )
    return check.ok("you linger" if facts.lingers else "logind leaves them alone")


def _space(space: Space) -> Finding:
    is_home = space.variable == "$HPK_HOME"
    name = "home-space" if is_home else "cache-space"
    check = Check(name=name, place=Place.LOGIN, title=f"space in {space.variable}")
    where = shown(space.path)
    if space.problem:
        return check.failed(
            shown(space.problem),
            costs="HPK has nowhere to keep its files",
            ask=f"set {space.variable[1:]} to a directory of yours that compute nodes share",
            essential=True,
        )
    free = f"{space.free_bytes / _GIB:.1f} GiB free"
    seen = f"{where} ({shown(space.filesystem, 40) or 'unknown file system'}): {free}"
    least, enough = (_HOME_LEAST, _HOME_ENOUGH) if is_home else (_CACHE_LEAST, _CACHE_ENOUGH)
    holds = "certificates, logs and the cluster's state" if is_home else "images and programs"
    ask = "make room" if is_home else "make room, or set HPK_CACHE to a scratch file system"
    if space.free_bytes < least:
        return check.failed(seen, costs=f"{holds} do not fit", ask=ask, essential=is_home)
    if space.free_bytes < enough:
        return check.warning(seen, costs=f"{holds} may soon not fit", ask=ask)
    if space.free_inodes != UNLIMITED and space.free_inodes < _INODES_ENOUGH:
        return check.warning(
            f"{seen}, {space.free_inodes} inodes", costs="no file can be made soon", ask=ask
        )
    return check.ok(seen)


def _quotas(facts: LoginFacts) -> Finding:
    check = Check(name="quotas", place=Place.LOGIN, title="quotas")
    limited = [quota for quota in facts.quotas if quota.limit_kib or quota.files_limit]
    if not limited:
        return check.ok("none that quota(1) tells of")
    said, tight = [], False
    for quota in limited:
        where = shown(quota.filesystem, 80)
        if quota.limit_kib:
            said.append(f"{where}: {quota.used_kib >> 20} of {quota.limit_kib >> 20} GiB")
            tight |= quota.used_kib > 0.9 * quota.limit_kib
        if quota.files_limit:
            said.append(f"{where}: {quota.files} of {quota.files_limit} files")
            tight |= quota.files > 0.9 * quota.files_limit
    seen = shown("; ".join(said))
    if tight:
        return check.warning(
            seen,
            costs="a full home stops the control plane: etcd cannot write",
            ask="make room, or set HPK_HOME and HPK_CACHE to another shared file system",
        )
    return check.ok(seen)


_CHECKS: tuple[Callable[[LoginFacts], Finding], ...] = (
    _address,
    _converter,
    _proxies,
    _etcd,
    _memory,
    _processes,
    _logout,
)
