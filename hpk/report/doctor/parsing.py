"""Text of programs, of the kernel and of the probe to data. No I/O; everything is hostile."""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Mapping

from hpk.model.codec import loads
from hpk.model.errors import ParseError
from hpk.report.doctor.facts import NodeReport, Pong, Quota

MAX_SHOWN = 300
_QUOTA_NUMBER = re.compile(r"([0-9]{1,18})\*?")
_MPI_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_OCTAL = re.compile(r"\\([0-7]{3})")


def shown(text: str, limit: int = MAX_SHOWN) -> str:
    """Foreign text as one line that no terminal takes for more than text."""
    parts = (" " if unicodedata.category(char)[0] in "CZ" else char for char in text[: 4 * limit])
    line = " ".join("".join(parts).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def parse_report(text: bytes) -> NodeReport:
    """``hello.json``.

    :raises ParseError: it is none, or a number in it is no such number.
    """
    report = loads(NodeReport, text)
    if not 0 <= report.port < 65536:
        raise ParseError(f"$.port: {report.port} is no port")
    if not 0 <= report.fuse.mode <= 0o7777:
        raise ParseError(f"$.fuse.mode: {report.fuse.mode} is no mode")
    if report.address:
        try:
            ipaddress.IPv4Address(report.address)
        except ValueError as error:
            raise ParseError(f"$.address: {report.address!r} is no IPv4 address") from error
    return report


def parse_pong(text: bytes) -> Pong:
    """``pong-N.json``.

    :raises ParseError: it is none.
    """
    pong = loads(Pong, text)
    if not math.isfinite(pong.time_s):
        raise ParseError("$.time_s: is no time")
    return pong


def parse_config(text: str) -> dict[str, str]:
    """``Key = value`` lines of ``scontrol show config``; the first of a key counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and re.fullmatch(r"[A-Za-z][A-Za-z0-9_/]*", name.strip(), re.ASCII):
            found.setdefault(name.strip(), value.strip())
    return found


def parse_mpi(text: str) -> tuple[str, ...]:
    """Plugins in the output of ``srun --mpi=list``, those named as versions included.

    Slurm has written them as ``srun: pmix``, one per line, and as indented names below a heading.
    """
    names: dict[str, None] = {}
    for line in text.splitlines():
        _, heading, versions = line.partition("versions available:")
        for word in (versions if heading else line.removeprefix("srun:")).split(","):
            if _MPI_NAME.fullmatch(word.strip()):
                names[word.strip()] = None
    return tuple(names)


def parse_quota(text: str) -> tuple[Quota, ...]:
    """The output of ``quota -w``: file system, KiB used, quota, limit, grace?, files, quota, limit.

    Lines of another form are passed over: sites wrap the program.
    """
    found = []
    for line in text.splitlines():
        name, *words = line.split()[:10] or [""]
        numbers = [
            int(match[1]) if (match := _QUOTA_NUMBER.fullmatch(word)) else None for word in words
        ]
        if len(numbers) < 6 or None in numbers[:3]:
            continue
        # A grace time stands there only where the quota is exceeded.
        files = numbers[3:6] if numbers[3] is not None else numbers[4:7]
        if len(files) < 3 or None in files:
            continue
        used, soft, hard = (number or 0 for number in numbers[:3])
        count, soft_files, hard_files = (number or 0 for number in files)
        found.append(
            Quota(
                filesystem=name,
                used_kib=used,
                limit_kib=hard or soft,
                files=count,
                files_limit=hard_files or soft_files,
            )
        )
    return tuple(found)


def filesystem_of(mountinfo: str, path: str) -> str:
    """The type of the file system that holds an absolute, resolved path. Source: proc(5)."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        fields, types = left.split(" "), right.split(" ")
        if not dash or len(fields) < 5 or not types[0]:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, types[0]
    return kind


def without_password(url: str) -> str:
    """A proxy's address without the user and password that may stand in it."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def covers(no_proxy: str, address: str) -> bool:
    """Whether ``no_proxy`` names this IPv4 address: itself, its network or ``*``."""
    for entry in (word.strip() for word in no_proxy.split(",")):
        if entry in ("*", address):
            return True
        try:
            if "/" in entry and ipaddress.ip_address(address) in ipaddress.ip_network(entry, False):
                return True
        except ValueError:
            continue
    return False


def parse_kill_processes(text: str) -> bool | None:
    """``KillUserProcesses`` in busctl's answer: ``b true``; None for anything else."""
    return {"b true": True, "b false": False}.get(text.strip())


def parse_default_account(text: str) -> tuple[tuple[str, ...], str]:
    """Accounts and the default one, of ``sacctmgr … format=Account,DefaultAccount`` lines."""
    accounts: dict[str, None] = {}
    default = ""
    for line in text.splitlines():
        account, _, of_user = line.strip().partition("|")
        if account:
            accounts[account] = None
            default = default or of_user.strip("|")
    return tuple(accounts), default


def version_tuple(text: str) -> tuple[int, int]:
    """``22.05.8`` as (22, 5); (0, 0) where it reads otherwise."""
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", text, re.ASCII)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def missing(commands: Mapping[str, str], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the programs are not there."""
    return tuple(name for name in wanted if name not in commands)
