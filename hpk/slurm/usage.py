"""What jobs hold and have used: one squeue for all that are there, one sacct for those that ended.

``parse_*`` are pure. Times are in seconds, Unix or spans.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from hpk.model.errors import ParseError
from hpk.model.ids import SlurmJobId
from hpk.slurm.parse import parse_state

# The reason comes last: it is the one text that may hold a separator.
SQUEUE_COLUMNS = (
    ("JobID", 20),
    ("State", 30),
    ("NodeList", 2048),
    ("StartTime", 24),
    ("TimeUsed", 24),
    ("TimeLeft", 24),
    ("NumCPUs", 12),
    ("tres-alloc", 1024),
    ("Reason", 512),
)
SQUEUE_FORMAT = ",".join(f"{name}:{width}|" for name, width in SQUEUE_COLUMNS)
SACCT_FORMAT = "JobIDRaw,State,NodeList,Start,ElapsedRaw,AllocCPUS,AllocTRES,Reason"

_NOTHING = ("", "N/A", "NONE", "None", "Unknown", "(null)", "None assigned", "n/a")
_SPAN = re.compile(r"(?:(?P<days>[0-9]+)-)?(?:(?P<h>[0-9]+):)?(?P<m>[0-9]+):(?P<s>[0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsage:
    """One job's allocation.

    :param start_time_s: expected start for queued jobs; None if unknown.
    :param time_left_s: None for jobs without a limit, or that do not run.
    :param cpus: allocated, or asked for by a queued job; gpus likewise.
    """

    job_id: SlurmJobId
    state: str
    reason: str
    nodes: str
    start_time_s: float | None
    elapsed_s: int
    time_left_s: int | None
    cpus: int
    gpus: int

    @property
    def cpu_hours(self) -> float:
        """What accounting charges CPUs by."""
        return self.cpus * self.elapsed_s / 3600

    @property
    def gpu_hours(self) -> float:
        """GPUs held, busy or not."""
        return self.gpus * self.elapsed_s / 3600


def parse_squeue_usage(text: str, ids: Collection[SlurmJobId]) -> dict[SlurmJobId, JobUsage]:
    """These jobs in the output of ``squeue -h -O SQUEUE_FORMAT``."""
    found = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|", len(SQUEUE_COLUMNS) - 1)]
        job_id = _number(fields[0])
        if job_id is None or SlurmJobId(job_id) not in ids:
            continue
        if len(fields) != len(SQUEUE_COLUMNS):
            raise ParseError(f"not a line of squeue: {line!r}")
        _id, state, nodes, start, used, left, cpus, tres, reason = fields
        found[SlurmJobId(job_id)] = JobUsage(
            job_id=SlurmJobId(job_id),
            state=parse_state(state, line).value,
            reason=_text(reason.rstrip("| ")),
            nodes=_text(nodes),
            start_time_s=_number(start),
            elapsed_s=_span_s(used) or 0,
            time_left_s=_span_s(left),
            cpus=_number(cpus) or 0,
            gpus=_gpus(tres),
        )
    return found


def parse_sacct_usage(text: str) -> dict[SlurmJobId, JobUsage]:
    """The jobs in the output of ``sacct -n -P -X --format=SACCT_FORMAT``."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|", 7)
        job_id = _number(fields[0])
        if job_id is None:
            continue
        if len(fields) != 8:
            raise ParseError(f"not a line of sacct: {line!r}")
        _id, state, nodes, start, elapsed, cpus, tres, reason = fields
        found[SlurmJobId(job_id)] = JobUsage(
            job_id=SlurmJobId(job_id),
            state=parse_state(state, line).value,
            reason=_text(reason),
            nodes=_text(nodes),
            start_time_s=_number(start) if _text(nodes) else None,
            elapsed_s=_number(elapsed) or 0,
            time_left_s=None,
            cpus=_number(cpus) or 0,
            gpus=_gpus(tres),
        )
    return found


def _gpus(tres: str) -> int:
    """``cpu=2,gres/gpu=3,gres/gpu:a100=3``: the untyped sum, else that of the types."""
    counts: dict[str, int] = {}
    for item in tres.split(","):
        name, _, count = item.partition("=")
        if name == "gres/gpu" or name.startswith("gres/gpu:"):
            counts[name] = _number(count) or 0
    return counts.pop("gres/gpu", None) or sum(counts.values())


def _span_s(text: str) -> int | None:
    found = _SPAN.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None


def _text(text: str) -> str:
    return "" if text in _NOTHING else text
