"""How the screen writes things: short, and the same width from one refresh to the next."""

from __future__ import annotations

from hpk.report.ps import PsRow
from hpk.report.times import moment, span
from hpk.report.top import NodeRow, Usage

NODE_TITLES = ("NODE", "READY", "PODS", "WAITING", "CPU USED", "OF", "MEMORY USED", "OF")
POD_TITLES = (
    *("POD", "STATUS", "JOB", "STATE", "REASON", "START", "NODES", "ELAPSED", "LEFT"),
    *("CPU", "MEMORY", "CPU-HOURS", "GPU-HOURS"),
)
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
    return (
        f"{row.namespace}/{row.pod}" if with_namespace else row.pod,
        row.status,
        "" if row.job_id is None else str(row.job_id),
        row.state,
        row.reason,
        "" if row.start_time_s is None else moment(row.start_time_s),
        row.nodes,
        span(row.elapsed_s),
        span(row.time_left_s),
        *usage_cells(usage),
        "" if row.cpu_hours is None else f"{row.cpu_hours:.2f}",
        "" if not row.gpu_hours else f"{row.gpu_hours:.2f}",
    )


def usage_cells(usage: Usage | None) -> tuple[str, str]:
    """Processors and memory; empty where nobody knows."""
    return ("", "") if usage is None else (f"{usage.cpus:.2f}", memory(usage.memory_bytes))


def memory(count: float) -> str:
    """``1.5 GiB``."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"
