"""The columns of `hpk ps`, as text; `hpk top` has them too."""

from __future__ import annotations

from hpk.report.ps import PsRow
from hpk.report.times import moment, span

TITLES = (
    *("POD", "STATUS", "JOB", "STATE", "REASON", "START", "NODES"),
    *("ELAPSED", "LEFT", "CPU-HOURS", "GPU-HOURS"),
)


def cells(row: PsRow) -> tuple[str, ...]:
    """Under TITLES."""
    return (
        row.pod,
        row.status,
        "" if row.job_id is None else str(row.job_id),
        row.state,
        row.reason,
        "" if row.start_time_s is None else moment(row.start_time_s),
        row.nodes,
        span(row.elapsed_s),
        span(row.time_left_s),
        "" if row.cpu_hours is None else f"{row.cpu_hours:.2f}",
        "" if not row.gpu_hours else f"{row.gpu_hours:.2f}",
    )
