"""What the kubelet says is wrong, in the conditions of the Nodes that it made. Pure.

Its Nodes stay Ready through all of these, so that nobody evicts pods whose jobs run on; the types
are those of kubelet/nodes/node.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SLURM, _FILES, _DESCRIPTORS = "SlurmAvailable", "SharedFilesAvailable", "DescriptorPressure"
_GOOD = {_SLURM: "True", _FILES: "True", _DESCRIPTORS: "False"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A condition of a Node that is not as it should be.

    :param condition: its type, e.g. ``SlurmAvailable``; reason and message are Kubernetes', too.
    """

    condition: str
    reason: str
    message: str


def node_troubles(node: Mapping[str, Any]) -> tuple[Trouble, ...]:
    """Those of one Node, as the API server has it. A type that it does not have is no trouble."""
    return tuple(
        Trouble(
            condition=one["type"],
            reason=str(one.get("reason") or ""),
            message=str(one.get("message") or one.get("reason") or "no message"),
        )
        for one in (node.get("status") or {}).get("conditions") or ()
        if one.get("type") in _GOOD and one.get("status") != _GOOD[one["type"]]
    )


def compute_problems(troubles: Mapping[str, tuple[Trouble, ...]], home: Path) -> tuple[str, ...]:
    """One line for each trouble with the next command to try; what all Nodes say is said once.

    :param troubles: by the Node's name.
    """
    nodes: dict[Trouble, list[str]] = {}
    for name, several in troubles.items():
        for trouble in several:
            nodes.setdefault(trouble, []).append(name)
    return tuple(
        f"{trouble.condition} of {'node' if len(names) == 1 else 'nodes'} {', '.join(names)}:"
        f" {trouble.message}; try: {_next_command(trouble, home)}"
        for trouble, names in nodes.items()
    )


def _next_command(trouble: Trouble, home: Path) -> str:
    if trouble.condition == _FILES:
        return f"timeout 10 ls {shlex.quote(str(home))}"
    if trouble.condition == _DESCRIPTORS:
        return "ulimit -Hn, and once it is higher hpk down and hpk up"
    return "sinfo" if trouble.reason == "PartitionDown" else "scontrol ping"
