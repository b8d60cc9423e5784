"""The job of `hpk doctor`: submitted, waited for, spoken with, and always taken away again.

Its name is ``hpk-doctor-NONCE``, its files lie in ``$HPK_HOME/doctor/NONCE``. Each run holds a lock
there while it lives; one that was killed leaves the lock free, and the next run clears up after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import sys
import time
from pathlib import Path

from bootstrap.binaries import Reporter
from hpk.config.schema import Config
from hpk.durable import private_directory, write_atomically
from hpk.flock import open_lock, try_lock
from hpk.model.errors import HpkError, ParseError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation
from hpk.model.plan import SbatchOption
from hpk.render import file_pattern, render_probe_script
from hpk.report.doctor import probe
from hpk.report.doctor.clearing import LEAVE_S, NAME, sweep, take_away
from hpk.report.doctor.facts import JobEnd, JobFacts, NodeReport
from hpk.report.doctor.meeting import Doorbell, Tokens, converse, read_file, read_report
from hpk.report.doctor.parsing import shown
from hpk.runtimes.registry import RUNTIMES
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

_VERSIONS_OF = ("apptainer", "singularity", "podman", "crun")
_PROBE_LIMIT_S = 240
_TIME_MINUTES = 5
_MEMORY_MIB = 256
_UNSEEN_S = 60
"""How long a running job may stay silent: three programs' time limits, and the slowest share."""
_POLL_S = 0.05
_ASK_SLURM_S = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user chose.

    :param timeout_s: how long the job may wait in the queue.
    :param partition: in the place of the configured one; "" for that.
    """

    timeout_s: float
    partition: str = ""


class DoctorJob:
    """One job and its directory."""

    def __init__(
        self,
        paths: HpkPaths,
        backend: CliBackend,
        config: Config,
        wanted: Wanted,
        reporter: Reporter,
    ) -> None:
        self._paths, self._backend, self._config = paths, backend, config
        self._wanted, self._reporter = wanted, reporter
        self._nonce = secrets.token_hex(8)
        self._directory = paths.home / "doctor" / self._nonce
        self._job_id: SlurmJobId | None = None
        self._began_s = 0.0
        self._conversed = False

    async def examine(self, address: str) -> JobFacts:
        """Submit, wait, converse; nothing is left, whatever happens.

        :param address: of this host, as compute nodes shall dial it; "" where there is none.
        """
        private_directory(self._directory.parent)
        await sweep(self._paths, self._backend)
        private_directory(self._directory)
        owner = open_lock(self._directory / "owner")
        try:
            try_lock(owner)
            tokens = Tokens()
            bell = Doorbell(tokens)
            async with bell.open(address):
                self._prepare(tokens, address, bell.port)
                return await self._run(tokens, bell)
        finally:
            try:
                await self._leave()
            finally:
                os.close(owner)

    def _prepare(self, tokens: Tokens, address: str, port: int) -> None:
        request = dataclasses.asdict(tokens) | {
            "address": address,
            "port": port,
            "python": str(Path(sys.executable).resolve()),
            "runtime_path": [str(place) for place in self._config.images.runtime_path],
            "programs": sorted({name for one in RUNTIMES.values() for name in one.programs}),
            "versions_of": list(_VERSIONS_OF),
            "limit_s": _PROBE_LIMIT_S,
        }
        write_atomically(self._directory / "request.json", json.dumps(request))
        write_atomically(self._directory / "probe.py", Path(probe.__file__).read_bytes())
        write_atomically(self._directory / "lock", "")
        script = render_probe_script(
            self._options(),
            python=request["python"],
            probe=str(self._directory / "probe.py"),
            directory=str(self._directory),
        )
        write_atomically(self._directory / "job.sh", script)

    def _options(self) -> tuple[SbatchOption, ...]:
        chosen = self._config.slurm
        named = {
            "partition": self._wanted.partition or chosen.partition,
            "account": chosen.account,
            "qos": chosen.qos,
            "constraint": chosen.constraint,
        }
        fixed = {
            "job-name": f"{NAME}-{self._nonce}",
            "output": file_pattern(str(self._directory / "job.log")),
            "chdir": "/",
            "export": "ALL",
            "ntasks": "1",
            "cpus-per-task": "1",
            "mem": f"{_MEMORY_MIB}M",
            "time": str(_TIME_MINUTES),
            "no-requeue": None,
        }
        whole = fixed | {name: value for name, value in named.items() if value}
        return tuple(SbatchOption(name, value, NAME) for name, value in whole.items())

    async def _run(self, tokens: Tokens, bell: Doorbell) -> JobFacts:
        self._reporter.step("job", "submitting")
        self._began_s = time.time()
        began = time.monotonic()
        try:
            self._job_id = await self._submit()
        except HpkError as error:
            return JobFacts(end=JobEnd.REFUSED, problem=shown(error.message))
        facts = JobFacts(end=JobEnd.UNSEEN, job_id=int(self._job_id))
        try:
            report = await self._wait(began)
            if isinstance(report, NodeReport):
                waited_s = time.monotonic() - began
                self._reporter.step("job", f"speaking with {shown(report.host, 60)}")
                exchange = await converse(self._directory, report, tokens, bell)
                self._conversed = len(exchange.rounds) == 3
                return dataclasses.replace(
                    facts,
                    end=JobEnd.REPORTED,
                    waited_s=waited_s,
                    report=report,
                    exchange=exchange,
                )
            end, problem = report
        except (ParseError, OSError) as error:
            end, problem = JobEnd.BROKEN, str(error)
        return dataclasses.replace(
            facts, end=end, problem=shown(problem), waited_s=time.monotonic() - began
        )

    async def _submit(self) -> SlurmJobId:
        return await self._backend.submit(self._directory / "job.sh", directory=self._directory)

    async def _wait(self, began: float) -> NodeReport | tuple[JobEnd, str]:
        """The node's report, or how far the job came."""
        running_since = None
        asked = 0.0
        job: JobObservation | None = None
        while True:
            report = read_report(self._directory)
            if report is not None:
                return report
            now = time.monotonic()
            if now - asked >= _ASK_SLURM_S:
                job, asked = await self._ask_slurm(), time.monotonic()
                if job is not None and job.state.is_terminal:
                    return await self._ended(job)
                if job is not None and job.nodes and running_since is None:
                    running_since = asked
            if running_since is not None and now - running_since > _UNSEEN_S:
                where = shown(job.nodes if job is not None else "", 60)
                return JobEnd.UNSEEN, f"it has been running on {where} for {_UNSEEN_S} s"
            if running_since is None and now - began > self._wanted.timeout_s:
                return JobEnd.NOT_STARTED, _state(job)
            await asyncio.sleep(_POLL_S)

    async def _ask_slurm(self) -> JobObservation | None:
        if self._job_id is None:
            return None
        with contextlib.suppress(HpkError):
            job = (await self._backend.jobs([self._job_id])).get(self._job_id)
            self._reporter.step("job", f"{self._job_id}: {_state(job)}")
            return job
        return None

    async def _ended(self, job: JobObservation) -> NodeReport | tuple[JobEnd, str]:
        """A job that ended before it was heard of: its last words, if they are seen here."""
        until = time.monotonic() + LEAVE_S
        while time.monotonic() < until:
            report = read_report(self._directory)
            if report is not None:
                return report
            log = read_file(self._directory / "job.log")
            if log:
                return JobEnd.BROKEN, f"{_state(job)}: {log[-2000:].decode(errors='replace')}"
            await asyncio.sleep(_POLL_S)
        return JobEnd.UNSEEN, f"{_state(job)} on {job.nodes or 'no node'}"

    async def _leave(self) -> None:
        self._reporter.step("job", "clearing up")
        grace_s = LEAVE_S if self._conversed else 0
        try:
            await take_away(
                self._backend, self._directory, self._job_id, self._began_s, grace_s=grace_s
            )
        except HpkError as error:
            left = f"{self._job_id or NAME + '-' + self._nonce}"
            why = shown(error.message, 100)
            self._reporter.done("job", f"{left}: not cancelled ({why}); the next run tries again")
        else:
            self._reporter.done("job", f"{self._job_id or 'none'}: nothing of it is left")


def _state(job: JobObservation | None) -> str:
    if job is None:
        return "Slurm says nothing of it"
    return f"{job.state.value} ({job.reason})" if job.reason else job.state.value
