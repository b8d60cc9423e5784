"""How the screen writes things: short, and the same width from one refresh to the next."""

from __future__ import annotations

from hpk.report.ps import PsRow
from hpk.report.ps_text import TITLES, cells
from hpk.report.top import NodeRow, Usage

NODE_TITLES = ("NODE", "READY", "PODS", "WAITING", "CPU USED", "OF", "MEMORY USED", "OF")
_AFTER = TITLES.index("CPU-HOURS")
"""Where what is used goes among the columns of `hpk ps`: before what it costs."""
POD_TITLES = (*TITLES[:_AFTER], "CPU", "MEMORY", *TITLES[_AFTER:])
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def node_cells(row: NodeRow) -> tuple[str, ...]:
    """Under NODE_TITLES."""
    ready = "yes" if row.ready else "NO"
    pods, waiting = str(row.running), str(row.waiting) if row.waiting else ""
    total = (f"{row.cpus:g}", memory(row.memory_bytes))
    used = usage_cells(row.usage)
    return (row.name, ready, pods, waiting, used[0], total[0], used[1], total[1])


def pod_cells(row: PsRow, usage: Usage | None, *, with_namespace: bool) -> tuple[str, ...]:
    """Under POD_TITLES."""
    name, *rest = cells(row)
    found = [f"{row.namespace}/{name}" if with_namespace else name, *rest]
    return (*found[:_AFTER], *usage_cells(usage), *found[_AFTER:])


def usage_cells(usage: Usage | None) -> tuple[str, str]:
    """Processors and memory; empty where nobody knows."""
    return ("", "") if usage is None else (f"{usage.cpus:.2f}", memory(usage.memory_bytes))


def memory(count: float) -> str:
    """``1.5 GiB``."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
