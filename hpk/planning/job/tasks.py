"""How the tasks of a job lie, as far as its options say before Slurm has placed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.plan import SbatchOption


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """How a job's tasks lie.

    :param count: tasks of the job.
    :param nodes: nodes of the job at least.
    :param per_node: most tasks a node has; None where only Slurm will know.
    """

    count: int
    nodes: int
    per_node: int | None


def plan_tasks(options: Mapping[str, SbatchOption]) -> Tasks:
    """Tasks and nodes that the options ask for."""
    nodes = first_number(options.get("nodes"))
    per_node = first_number(options.get("ntasks-per-node"))
    count = first_number(options.get("ntasks"))
    if count is None:
        count = (nodes or 1) * (per_node or 1)
        return Tasks(count=count, nodes=nodes or 1, per_node=per_node or 1)
    if per_node is not None:
        per_node = min(per_node, count)
        return Tasks(count=count, nodes=max(nodes or 1, -(-count // per_node)), per_node=per_node)
    if count == 1:
        return Tasks(count=count, nodes=nodes or 1, per_node=1)
    exactly_one_node = nodes == 1 and options["nodes"].value == "1"
    return Tasks(count=count, nodes=nodes or 1, per_node=count if exactly_one_node else None)


def first_number(option: SbatchOption | None) -> int | None:
    """``4`` of ``4``, ``4-8`` or ``4k``."""
    if option is None or option.value is None:
        return None
    head = option.value.partition("-")[0]
    return int(head.rstrip("k")) * (1024 if head.endswith("k") else 1)
