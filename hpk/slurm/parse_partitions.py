"""Slurm's text to data: ``scontrol --oneliner show partition`` and ``show node``. No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hpk.model.duration import UNLIMITED, parse_duration
from hpk.model.errors import ParseError
from hpk.model.job import Partition

_MIB = 1024 * 1024
_KEY = re.compile(r"(?:^|(?<= ))([A-Z][A-Za-z0-9_]*(?:[:/][A-Za-z]+)?)=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: usable CPUs, memory in bytes, GPUs."""

    name: str
    cpus: int
    memory_bytes: int
    gpus: int
    features: tuple[str, ...]
    partitions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What decides where a user may submit; None where Slurm does not tell."""

    accounts: frozenset[str] | None
    groups: frozenset[str]


def parse_oneliner(line: str) -> dict[str, str]:
    """``Key=value`` pairs of one line; values may hold spaces. The first of a key counts."""
    keys = list(_KEY.finditer(line))
    if not keys or keys[0].start() != 0:
        raise ParseError(f"not a line of scontrol: {line!r}")
    pairs: dict[str, str] = {}
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        end = len(line) if following is None else following.start()
        pairs.setdefault(key[1], line[key.end() : end].strip())
    return pairs


def parse_nodes(text: str) -> tuple[Node, ...]:
    """The output of ``scontrol --oneliner show node``."""
    return tuple(_node(line) for line in text.splitlines() if line.startswith("NodeName="))


def _node(line: str) -> Node:
    pairs = parse_oneliner(line)
    reserved_mib = _count(pairs.get("MemSpecLimit", "0"), line)
    memory_mib = max(_count(_need(pairs, "RealMemory", line), line) - reserved_mib, 0)
    return Node(
        name=pairs["NodeName"],
        cpus=_count(pairs.get("CPUEfctv") or _need(pairs, "CPUTot", line), line),
        memory_bytes=memory_mib * _MIB,
        gpus=parse_gres_gpus(pairs.get("Gres", "")),
        features=_names(pairs.get("ActiveFeatures") or pairs.get("AvailableFeatures", "")),
        partitions=_names(pairs.get("Partitions", "")),
    )


def parse_gres_gpus(text: str) -> int:
    """GPUs in ``gpu:a100:4(S:0-1),gpu:2,nvme:1``."""
    total = 0
    for item in re.sub(r"\([^)]*\)", "", text).split(","):
        name, *rest = item.strip().split(":")
        if name != "gpu":
            continue
        count = rest[-1] if rest else "1"
        found = re.fullmatch(r"([0-9]{1,9})([KkMm]?)", count, re.ASCII)
        if found is None:
            raise ParseError(f"no number of GPUs: {item!r} in {text!r}")
        total += int(found[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[found[2].lower()]
    return total


def parse_partitions(text: str, nodes: Iterable[Node], member: Membership) -> tuple[Partition, ...]:
    """The output of ``scontrol --oneliner show partition``, without those closed to the user."""
    known = tuple(nodes)
    partitions = []
    for line in text.splitlines():
        if not line.startswith("PartitionName="):
            continue
        pairs = parse_oneliner(line)
        if _is_open(pairs, member):
            name = pairs["PartitionName"]
            mine = [node for node in known if name in node.partitions]
            partitions.append(_partition(pairs, mine, line))
    return tuple(partitions)


def _is_open(pairs: Mapping[str, str], member: Membership) -> bool:
    if pairs.get("RootOnly") == "YES":
        return False
    if not _allows(pairs.get("AllowGroups", "ALL"), member.groups):
        return False
    if member.accounts is None:
        return True
    denied = set(_names(pairs.get("DenyAccounts", "")))
    return _allows(pairs.get("AllowAccounts", "ALL"), member.accounts - denied)


def _allows(text: str, mine: Collection[str]) -> bool:
    return text in ("ALL", "") or any(name in mine for name in text.split(","))


def _partition(pairs: Mapping[str, str], nodes: list[Node], line: str) -> Partition:
    features = {feature: None for node in nodes for feature in node.features}
    return Partition(
        name=pairs["PartitionName"],
        is_default=pairs.get("Default") == "YES",
        is_up=pairs.get("State", "UP") == "UP",
        nodes=tuple(node.name for node in nodes),
        max_time_s=parse_duration(pairs.get("MaxTime", "UNLIMITED"), line),
        default_time_s=parse_duration(pairs.get("DefaultTime", "NONE"), line),
        default_memory_per_cpu_bytes=_memory(pairs.get("DefMemPerCPU", ""), line),
        default_memory_per_node_bytes=_memory(pairs.get("DefMemPerNode", ""), line),
        total_cpus=sum(node.cpus for node in nodes),
        total_memory_bytes=sum(node.memory_bytes for node in nodes),
        gpus=sum(node.gpus for node in nodes),
        max_node_cpus=_capped(max((node.cpus for node in nodes), default=0), pairs, line),
        max_node_memory_bytes=max((node.memory_bytes for node in nodes), default=0),
        max_node_gpus=max((node.gpus for node in nodes), default=0),
        features=tuple(features),
    )


def _capped(cpus: int, pairs: Mapping[str, str], line: str) -> int:
    """MaxCPUsPerNode limits what one job of this partition gets of a node."""
    limit = pairs.get("MaxCPUsPerNode", "UNLIMITED")
    return cpus if limit in UNLIMITED else min(cpus, _count(limit, line))


def _memory(text: str, line: str) -> int | None:
    return None if text in (*UNLIMITED, "0") else _count(text, line) * _MIB


def _names(text: str) -> tuple[str, ...]:
    return () if text in ("", "(null)", "none") else tuple(text.split(","))


def _need(pairs: Mapping[str, str], key: str, line: str) -> str:
    if key not in pairs:
        raise ParseError(f"no {key} in {line!r}")
    return pairs[key]


def _count(text: str, line: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text, re.ASCII):
        raise ParseError(f"no whole number: {text!r} in {line!r}")
    return int(text)
