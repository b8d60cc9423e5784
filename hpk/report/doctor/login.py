"""Collects what the login node says; what cannot be had is a fact of its own, never an error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import resource
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bootstrap.host import find_address, probe_data_directory
from hpk import subproc
from hpk.config.schema import Config
from hpk.durable import private_directory
from hpk.model.errors import HpkError
from hpk.report.doctor.facts import (
    UNLIMITED,
    Accounting,
    LoginFacts,
    ProcessLimits,
    Quota,
    SlurmFacts,
    Space,
)
from hpk.report.doctor.parsing import (
    filesystem_of,
    parse_config,
    parse_default_account,
    parse_kill_processes,
    parse_mpi,
    parse_quota,
    shown,
    without_password,
)
from hpk.slurm.cli import CliBackend
from hpk.slurm.refusals import slurm_words
from hpk.statefs import HpkPaths

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sacct", "sacctmgr")
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_TIMEOUT_S = 20
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 of cgroups writes a number near 2^63 for no limit."""


async def collect_login(paths: HpkPaths, backend: CliBackend, config: Config) -> LoginFacts:
    """Everything the login node can say by itself."""
    try:
        address, address_problem = find_address(config.control_plane.address), ""
    except HpkError as error:
        address, address_problem = "", str(error)
    spaces = (_space("$HPK_HOME", paths.home), _space("$HPK_CACHE", paths.cache))
    etcd_problem = "" if spaces[0].problem else await asyncio.to_thread(_try_etcd, paths, config)
    runtime_path = os.pathsep.join(str(place) for place in config.images.runtime_path)
    converters = [
        found
        for name in ("apptainer", "singularity")
        if (found := shutil.which(name, path=runtime_path) or shutil.which(name))
    ]
    return LoginFacts(
        host=socket.gethostname(),
        address=address,
        address_problem=address_problem,
        slurm=await _slurm(backend, config),
        converter=converters[0] if converters else "",
        proxies={n: shown(without_password(os.environ[n])) for n in _PROXIES if os.environ.get(n)},
        no_proxy=os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "",
        spaces=spaces,
        quotas=await _quotas(),
        limits=_limits(),
        kills_at_logout=await _kills_at_logout(),
        lingers=_lingers(),
        etcd_problem=etcd_problem,
    )


async def _slurm(backend: CliBackend, config: Config) -> SlurmFacts:
    facts = SlurmFacts(
        commands={name: path for name in COMMANDS if (path := shutil.which(name))},
        config={},
        accounting=Accounting(problem="no slurmctld"),
        account=config.slurm.account,
        partition=config.slurm.partition,
    )
    if "scontrol" not in facts.commands or "sbatch" not in facts.commands:
        return replace(facts, controller="scontrol and sbatch are not on PATH")
    with contextlib.suppress(HpkError):
        facts = replace(facts, version=await backend.version())
    # Where no controller runs, Slurm's programs go on trying for a long while; ping does not.
    said, answers = await _ask(["scontrol", "ping"])
    if not answers or " is UP" not in said:
        return replace(facts, controller=shown(said) or "scontrol ping says nothing")
    text, _ = await _ask(["scontrol", "show", "config"])
    mpi, _ = await _ask(["srun", "--mpi=list"])
    try:
        facts = replace(facts, partitions=await backend.partitions())
    except HpkError as error:
        facts = replace(facts, partitions_problem=error.message)
    return replace(
        facts, config=parse_config(text), accounting=await _accounting(), mpi=parse_mpi(mpi)
    )


async def _accounting() -> Accounting:
    said, answers = await _ask(["sacct", "-n", "-P", "-X", "-S", "now-1minutes"])
    if not answers:
        disabled = "accounting storage is disabled" in said
        return Accounting(enabled=not disabled, problem="" if disabled else shown(said))
    argv = ["sacctmgr", "-n", "-P", "show", "user", _user_name(), "withassoc"]
    said, answers = await _ask([*argv, "format=Account,DefaultAccount"])
    if not answers:
        return Accounting(problem=shown(said))
    accounts, default = parse_default_account(said)
    return Accounting(accounts=accounts, default_account=default)


async def _ask(argv: Sequence[str]) -> tuple[str, bool]:
    """What a program says, and whether it ended well."""
    environment = subproc.base_environment({"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"})
    try:
        done = await subproc.run(argv, environment=environment, timeout_s=_TIMEOUT_S, cwd=Path("/"))
    except (HpkError, OSError) as error:
        return str(error), False
    if done.exit_code == 0:
        return done.stdout + done.stderr, True
    return slurm_words(done.stderr) or done.stdout, False


def _space(variable: str, path: Path) -> Space:
    try:
        private_directory(path)
        info = os.statvfs(path)
    except (HpkError, OSError) as error:
        return Space(variable=variable, path=str(path), problem=str(error))
    mountinfo = _text("/proc/self/mountinfo")
    return Space(
        variable=variable,
        path=str(path),
        filesystem=filesystem_of(mountinfo, str(path.resolve())),
        free_bytes=info.f_bavail * info.f_frsize,
        free_inodes=info.f_favail if info.f_files else UNLIMITED,
    )


def _try_etcd(paths: HpkPaths, config: Config) -> str:
    if config.control_plane.etcd_data:
        return ""
    directory = paths.home / "doctor"
    try:
        probe_data_directory(directory)
    except (HpkError, OSError) as error:
        return str(error)
    return ""


async def _quotas() -> tuple[Quota, ...]:
    if shutil.which("quota") is None:
        return ()
    # It ends with 1 where a quota is exceeded, which is no reason not to read it.
    try:
        done = await subproc.run(["quota", "-w"], timeout_s=_TIMEOUT_S, cwd=Path("/"))
    except (HpkError, OSError):
        return ()
    return parse_quota(done.stdout)


def _limits() -> ProcessLimits:
    memory, tasks = [], []
    for directory in _cgroup_directories():
        memory.append(_number(directory / "memory.max"))
        memory.append(_number(directory / "memory.limit_in_bytes"))
        tasks.append(_number(directory / "pids.max"))
    return ProcessLimits(
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        nproc=resource.getrlimit(resource.RLIMIT_NPROC)[1],
        cpu_s=resource.getrlimit(resource.RLIMIT_CPU)[0],
        address_space_bytes=resource.getrlimit(resource.RLIMIT_AS)[0],
        memory_bytes=min((n for n in memory if n != UNLIMITED), default=UNLIMITED),
        tasks=min((n for n in tasks if n != UNLIMITED), default=UNLIMITED),
    )


def _cgroup_directories() -> list[Path]:
    """Every cgroup we are in, with those around it, in the usual places."""
    found = []
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        names = controllers.split(",")
        place = "" if not controllers else next((n for n in names if n in ("memory", "pids")), None)
        if place is None or not path.startswith("/") or ".." in path.split("/"):
            continue
        root = Path("/sys/fs/cgroup", place)
        inner = root / path.lstrip("/")
        found += [inner, *(parent for parent in inner.parents if parent.is_relative_to(root))]
    return found


def _number(path: Path) -> int:
    text = _text(str(path)).strip()
    if not text.isascii() or not text.isdigit() or int(text) >= _NO_LIMIT_BYTES:
        return UNLIMITED
    return int(text)


async def _kills_at_logout() -> bool | None:
    if shutil.which("busctl") is None:
        return None
    service = ("org.freedesktop.login1", "/org/freedesktop/login1")
    argv = ["busctl", "get-property", *service, "org.freedesktop.login1.Manager"]
    said, answers = await _ask([*argv, "KillUserProcesses"])
    return parse_kill_processes(said) if answers else None


def _lingers() -> bool:
    return Path("/var/lib/systemd/linger", _user_name()).exists()


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _text(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
