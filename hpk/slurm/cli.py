"""Slurm through its own programs: sbatch, squeue, sacct, scancel, scontrol, sacctmgr."""

from __future__ import annotations

import asyncio
import dataclasses
import grp
import os
import pwd
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from hpk import subproc
from hpk.model.errors import HpkError, ParseError, PermanentError, TransientError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, JobState, Partition
from hpk.slurm.base import Submission, parse_submit_output
from hpk.slurm.parse import SACCT_FIELDS, SQUEUE_FIELDS, parse_kill_wait, parse_sacct, parse_squeue
from hpk.slurm.parse_partitions import Membership, parse_nodes, parse_partitions
from hpk.slurm.refusals import UNKNOWN, refusal, slurm_words
from hpk.slurm.usage import (
    SACCT_FORMAT,
    SQUEUE_FORMAT,
    JobUsage,
    parse_sacct_usage,
    parse_squeue_usage,
)

_QUERY_TIMEOUT_S = 60
_SUBMIT_TIMEOUT_S = 180
_CONCURRENT_WRITES = 8
"""How many sbatch and scancel run at once: a thousand pods must not be a thousand processes."""
"""sbatch itself waits and tries again for up to two minutes when slurmctld is busy."""
_CLOCK_SKEW_S = 300
_IDS_AT_ONCE = 1000


class CliBackend:
    """SlurmBackend over Slurm's command line programs.

    :param environment: added to the few variables each program gets.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = subproc.base_environment(
            {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"} | dict(environment or {})
        )
        self._submit_environment = _submit_environment(environment or {})
        self._user = str(os.getuid())
        self._writes = asyncio.Semaphore(_CONCURRENT_WRITES)

    async def submit(self, submission: Submission) -> SlurmJobId:
        """See SlurmBackend."""
        try:
            async with self._writes:
                done = await subproc.run(
                    ["sbatch", "--parsable", str(submission.script)],
                    environment=self._submit_environment,
                    timeout_s=_SUBMIT_TIMEOUT_S,
                    cwd=Path("/"),
                    stdout_path=submission.stdout_path,
                    stderr_path=submission.stderr_path,
                    pass_fds=[submission.lock_fd],
                    outlives_us=True,
                )
        except TransientError as error:
            raise TransientError(error.message, reason=UNKNOWN) from error
        job_id = parse_submit_output(_read(submission.stdout_path))
        if job_id is not None:
            return job_id
        said = _read(submission.stderr_path)
        if done.exit_code == 0:
            raise TransientError(
                f"sbatch ended well but gave no job id: {slurm_words(said)}", reason=UNKNOWN
            )
        raise refusal("sbatch", said, exit_code=done.exit_code)

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        """See SlurmBackend.

        A job that squeue does not show while accounting does not answer is UNKNOWN in the answer:
        only a job that both deny is absent.
        """
        if not ids:
            return {}
        wanted = set(ids)
        found = {job.job_id: job for job in await self._squeue() if job.job_id in wanted}
        asked = [i for i in sorted(wanted) if i not in found or found[i].state.is_terminal]
        if not asked:
            return found
        try:
            recorded = [job for some in in_chunks(asked) for job in await self._sacct(["-j", some])]
        except TransientError as error:
            return {i: _unknown(i, error) for i in asked if i not in found} | found
        _merge(found, (job for job in recorded if job.job_id in wanted))
        return found

    async def usage(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobUsage]:
        """What these jobs hold and have used: one squeue, and one sacct for those that ended.

        :raises TransientError: Slurm does not answer; where only accounting does not, the jobs
            that it alone knows are absent.
        """
        if not ids:
            return {}
        argv = ["squeue", "-h", "-a", "-t", "all", "-u", self._user, "-O", SQUEUE_FORMAT]
        found = parse_squeue_usage(await self._query(argv), ids)
        asked = [i for i in sorted(ids) if i not in found or JobState(found[i].state).is_terminal]
        if asked:
            argv = ["sacct", "-n", "-P", "-X", f"--format={SACCT_FORMAT}"]
            for some in in_chunks(asked):
                done = await self._run([*argv, "-j", some])
                if done.exit_code == 0:
                    found |= parse_sacct_usage(done.stdout)
        return found

    async def find_jobs(self, name: str, *, since_s: float) -> tuple[JobObservation, ...]:
        """See SlurmBackend."""
        found = {job.job_id: job for job in await self._squeue() if job.name == name}
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since_s - _CLOCK_SKEW_S))
        arguments = [f"--name={name}", "-S", since, "-u", self._user]
        _merge(found, (job for job in await self._sacct(arguments) if job.name == name))
        return tuple(found[job_id] for job_id in sorted(found))

    async def cancel(self, job_id: SlurmJobId) -> None:
        """See SlurmBackend."""
        async with self._writes:
            done = await self._run(["scancel", str(job_id)])
        if done.exit_code == 0:
            return
        words = slurm_words(done.stderr)
        if "Invalid job id" in words or "already completing or completed" in words:
            return
        raise refusal("scancel", done.stderr, exit_code=done.exit_code)

    async def partitions(self) -> tuple[Partition, ...]:
        """See SlurmBackend."""
        nodes = await self._query(["scontrol", "--oneliner", "show", "node"])
        partitions = await self._query(["scontrol", "--oneliner", "show", "partition"])
        return parse_partitions(partitions, parse_nodes(nodes), await self._membership())

    async def version(self) -> str:
        """See SlurmBackend."""
        text = await self._query(["sbatch", "--version"])
        words = text.split()
        if len(words) != 2:
            raise ParseError(f"not a version of Slurm: {text.strip()!r}")
        return words[1]

    async def kill_wait_s(self) -> int:
        """See SlurmBackend."""
        return parse_kill_wait(await self._query(["scontrol", "show", "config"]))

    async def _squeue(self) -> tuple[JobObservation, ...]:
        marker = secrets.token_hex(8)
        text = await self._query(
            ["squeue", "-h", "-a", "-t", "all", "-u", self._user, "-o", f"{marker}|{SQUEUE_FIELDS}"]
        )
        return parse_squeue(text, marker)

    async def _sacct(self, arguments: Sequence[str]) -> tuple[JobObservation, ...]:
        """What accounting knows; nothing where the site keeps none."""
        done = await self._run(["sacct", "-n", "-P", f"--format={SACCT_FIELDS}", *arguments])
        if done.exit_code == 0:
            return parse_sacct(done.stdout)
        if "accounting storage is disabled" in done.stderr:
            return ()
        raise TransientError(f"sacct: {slurm_words(done.stderr)}", reason="NoAccounting")

    async def _membership(self) -> Membership:
        names = []
        for gid in {os.getgid(), *os.getgroups()}:
            try:
                names.append(grp.getgrgid(gid).gr_name)
            except KeyError:
                continue
        return Membership(accounts=await self._accounts(), groups=frozenset(names))

    async def _accounts(self) -> frozenset[str] | None:
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return None
        argv = ["sacctmgr", "-n", "-P", "show", "associations", f"user={user}", "format=Account"]
        try:
            text = await self._query(argv)
        except HpkError:
            return None
        return frozenset(line.strip() for line in text.splitlines() if line.strip()) or None

    async def _query(self, argv: Sequence[str]) -> str:
        done = await self._run(argv)
        if done.exit_code != 0:
            raise refusal(argv[0], done.stderr, exit_code=done.exit_code)
        return done.stdout

    async def _run(self, argv: Sequence[str]) -> subproc.Completed:
        return await subproc.run(
            argv, environment=self._environment, timeout_s=_QUERY_TIMEOUT_S, cwd=Path("/")
        )


def in_chunks(ids: Iterable[SlurmJobId]) -> Iterable[str]:
    """``1,2,3``, as many ids in each as one argument of a program may hold (128 KiB, execve(2))."""
    ordered = sorted(ids)
    for first in range(0, len(ordered), _IDS_AT_ONCE):
        yield ",".join(str(job_id) for job_id in ordered[first : first + _IDS_AT_ONCE])


def _merge(found: dict[SlurmJobId, JobObservation], recorded: Iterable[JobObservation]) -> None:
    """Add what accounting says; it decides on jobs that have ended, squeue on all others.

    Accounting lags: it may not have heard yet of an end that squeue shows. Of a job that never
    started it does not know the name at first, so squeue's stays.
    """
    for job in recorded:
        seen = found.get(job.job_id)
        if seen is None:
            found[job.job_id] = job
        elif job.state.is_terminal and seen.state.is_terminal:
            found[job.job_id] = dataclasses.replace(job, name=seen.name)


def _submit_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What sbatch gets and, by --export=ALL, the job: nothing that holds on this host only."""
    environment = subproc.base_environment(extra)
    environment.pop("TMPDIR", None)
    return environment


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError as error:
        raise PermanentError(f"{path} disappeared while sbatch ran") from error


def _unknown(job_id: SlurmJobId, error: HpkError) -> JobObservation:
    return JobObservation(
        job_id=job_id,
        name="",
        state=JobState.UNKNOWN,
        reason=error.message,
        nodes="",
        exit_code=None,
        signal=0,
        start_time_s=None,
        end_time_s=None,
        source="squeue",
    )
