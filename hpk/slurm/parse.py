"""Slurm's text to data: squeue and sacct. No I/O.

Free texts (a job's name, its command) may hold any separator, so they stand between markers: words
that nobody could guess when the job was submitted. Times are Unix seconds (SLURM_TIME_FORMAT=%s).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

from hpk.model.errors import ParseError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, JobState

SACCT_FIELDS = "JobIDRaw,State,ExitCode,Reason,NodeList,Start,End,SubmitLine,JobName"
_SACCT_COUNT = 9

_NONE: Mapping[str, JobObservation] = MappingProxyType({})
_SIG_OOM = 125
"""What accounting gives for "ran out of memory" in the place of a signal."""
_STATE = re.compile(r"[A-Z_]{2,32}")
_JOB_ID = re.compile(r"[0-9]{1,10}")
_STEP_ID = re.compile(r"(?P<job>[0-9]{1,10})\.[0-9A-Za-z+_]+")
_EXIT_CODE = re.compile(r"(?P<code>[0-9]{1,5}):(?P<signal>[0-9]{1,5})")


def parse_state(text: str, line: str = "") -> JobState:
    """``CANCELLED by 1000``, ``RUNNING``, ``COMPLETED+`` as a base state.

    A word this version does not know (a newer Slurm's) is UNKNOWN: one job of the user must not
    hide all others.
    """
    word = text.split(" ", 1)[0].rstrip("+")
    if not _STATE.fullmatch(word):
        raise ParseError(f"no job state of Slurm: {text!r} in {line!r}")
    try:
        return JobState(word)
    except ValueError:
        return JobState.UNKNOWN


def squeue_format(marker: str) -> str:
    """The ``-o`` of squeue whose output `parse_squeue` takes."""
    return f"{marker}|%i|%T|%r|%N|%S|%e|{marker}%o{marker}%j"


def parse_squeue(
    text: str, marker: str, known: Mapping[str, JobObservation] = _NONE
) -> dict[str, JobObservation]:
    """The jobs in the output of ``squeue -h -o FORMAT``, by their records' text.

    :param known: an earlier answer; records that are in it too are not read again.
    """
    records = ("\n" + text).split(f"\n{marker}|")
    if records[0].strip():
        raise ParseError(f"not a line of squeue: {records[0].strip()!r}")
    found: dict[str, JobObservation] = {}
    for record in records[1:]:
        line = record.removesuffix("\n")
        job = known.get(line) or _squeue_job(line, marker)
        if job is not None:
            found[line] = job
    return found


def _squeue_job(line: str, marker: str) -> JobObservation | None:
    texts = line.split(marker, 2)
    fields = texts[0].split("|")
    if len(fields) != 7 or len(texts) != 3:
        raise ParseError(f"not a line of squeue: {line!r}")
    job_id, state, reason, nodes, start, end, _ = fields
    _, command, name = texts
    if not _JOB_ID.fullmatch(job_id):
        return None  # an element of a job array or of a heterogeneous job: never one of ours
    parsed = parse_state(state, line)
    return JobObservation(
        job_id=SlurmJobId(int(job_id)),
        name=name,
        state=parsed,
        reason=_text(reason),
        nodes=_text(nodes),
        exit_code=None,
        signal=0,
        start_time_s=_time(start, line),
        end_time_s=_time(end, line) if parsed.is_terminal else None,
        source="squeue",
        command=_text(command),
    )


def parse_sacct(text: str, marker: str) -> tuple[JobObservation, ...]:
    """The jobs in the output of ``sacct -n -p --delimiter=MARKER --format=SACCT_FIELDS``.

    Steps are merged in.

    A job that failed while one of its steps ran out of memory is OUT_OF_MEMORY: Slurm says so of
    the job itself only where the batch step was hit.
    """
    jobs: dict[SlurmJobId, JobObservation] = {}
    out_of_memory: set[SlurmJobId] = set()
    for line in text.split(f"{marker}\n"):
        if not line.strip():
            continue
        fields = line.split(marker)
        if len(fields) != _SACCT_COUNT:
            raise ParseError(f"not a line of sacct: {line!r}")
        step = _STEP_ID.fullmatch(fields[0])
        if step is not None:
            if fields[1].startswith(JobState.OUT_OF_MEMORY.value):
                out_of_memory.add(SlurmJobId(int(step["job"])))
        elif _JOB_ID.fullmatch(fields[0]):
            job = _sacct_job(fields, line)
            jobs[job.job_id] = job
    return tuple(
        dataclasses.replace(job, state=JobState.OUT_OF_MEMORY)
        if job.state is JobState.FAILED and job.job_id in out_of_memory
        else job
        for job in jobs.values()
    )


def _sacct_job(fields: list[str], line: str) -> JobObservation:
    job_id, state, exit_code, reason, nodes, start, end, command, name = fields
    parsed = parse_state(state, line)
    code = _EXIT_CODE.fullmatch(exit_code)
    if code is None:
        raise ParseError(f"no exit code of Slurm: {exit_code!r} in {line!r}")
    return JobObservation(
        job_id=SlurmJobId(int(job_id)),
        name=name,
        state=parsed,
        reason=_text(reason),
        nodes=_text(nodes),
        exit_code=int(code["code"]) if parsed.is_terminal else None,
        signal=_signal(code["signal"]) if parsed.is_terminal else 0,
        # Of a job cancelled in the queue, accounting gives its end as its start.
        start_time_s=_time(start, line) if _text(nodes) else None,
        end_time_s=_time(end, line),
        source="sacct",
        command=_text(command),
    )


def _signal(text: str) -> int:
    return 0 if int(text) == _SIG_OOM else int(text)


def _text(text: str) -> str:
    """Slurm writes several words for nothing."""
    return "" if text in ("", "None", "none", "(null)", "None assigned", "N/A") else text


def _time(text: str, line: str) -> float | None:
    if text in ("", "N/A", "NONE", "None", "Unknown", "(null)"):
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text, re.ASCII):
        raise ParseError(f"no time in seconds: {text!r} in {line!r}")
    return float(text) or None


def parse_kill_wait(text: str) -> int:
    """``KillWait`` in the output of ``scontrol show config``, in seconds.

    :raises ParseError: it is not there.
    """
    for line in text.splitlines():
        name, _, value = line.partition("=")
        words = value.split()
        if name.strip() == "KillWait" and words and words[0].isascii() and words[0].isdigit():
            return int(words[0])
    raise ParseError("scontrol show config: no line `KillWait = SECONDS sec`")
