"""From a PodPlan to exactly one Slurm job, whatever dies on the way.

The order is the point: files, then the journalled intent, then sbatch, then its id in the journal.
sbatch inherits a lock and writes its answer to a file, so that a kubelet that was killed under it
can wait for it and read what it said. A submission that left no trace is revoked, by taking its
claim, before there is another.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import sys
import time
from pathlib import Path

from hpk.durable import claim, private_directory, write_atomically
from hpk.flock import wait_for_lock
from hpk.journal import Attempt, Step, read_pod, record_step
from hpk.model import codec
from hpk.model.errors import ParseError, PermanentError, TransientError
from hpk.model.ids import JobName, Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec, PodPlan, SupervisorSettings
from hpk.render import render_script
from hpk.slurm.base import SlurmBackend, Submission, parse_submit_output
from hpk.statefs import HpkPaths
from kubelet.submission.repeated import RepeatedRefusals

log = logging.getLogger(__name__)

REVOKED_BY_KUBELET = "revoked by the kubelet\n"


class Submitter:
    """Submits attempts and finds out what became of those nobody has the id of."""

    def __init__(
        self, *, paths: HpkPaths, slurm: SlurmBackend, settings: SupervisorSettings, zipapp: Path
    ) -> None:
        self._paths = paths
        self._slurm = slurm
        self._settings = settings
        self._zipapp = zipapp
        self._knows_kill_wait = False
        self._refusals = RepeatedRefusals()

    async def submit(self, pod: PodRef, plan: PodPlan) -> Attempt:
        """Start a new attempt.

        :raises PermanentError: Slurm refuses it for good.
        :raises TransientError: not now; nothing of the attempt is left, unless its reason is
            ``Unknown``: then the journal holds it open, to be recovered.
        """
        await self._learn_kill_wait()
        nonce = Nonce(secrets.token_hex(8))
        layout = self._paths.attempt(pod.uid, nonce)
        await asyncio.to_thread(self._prepare, pod, plan, nonce, layout)
        try:
            job_id = await self._sbatch(pod, layout)
        except PermanentError:
            await self._record(pod, Step.REFUSED, nonce)
            raise
        except TransientError as error:
            if error.reason != "Unknown":
                await self._record(pod, Step.REFUSED, nonce)
            raise self._refusals.judge(pod.uid, error, now_s=time.monotonic()) from error
        self._refusals.forget(pod.uid)
        return await self._submitted(pod, nonce, job_id)

    async def recover(self, attempt: Attempt) -> Attempt | None:
        """The attempt with its job's id; None if it never got one and never will."""
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        job_id = await self._find(attempt, layout)
        if job_id is None and await asyncio.to_thread(self._revoke, layout):
            log.info("submission revoked pod=%s nonce=%s", attempt.pod, attempt.nonce)
            await self._record(attempt.pod, Step.REVOKED, attempt.nonce)
            return None
        if job_id is None:
            job_id = await asyncio.to_thread(_job_of_claim, layout)
        log.info("submission recovered pod=%s job=%s", attempt.pod, job_id)
        return await self._submitted(attempt.pod, attempt.nonce, job_id)

    def load_spec(self, attempt: Attempt) -> JobSpec:
        """The plan the attempt was submitted with.

        :raises ParseError: pod.json is damaged or gone.
        """
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        try:
            return codec.loads(JobSpec, Path(layout.spec).read_bytes())
        except OSError as error:
            raise ParseError(f"{layout.spec}: {error.strerror}") from error

    async def _learn_kill_wait(self) -> None:
        """Ask Slurm, once, how long a supervisor has when Slurm ends its job."""
        if self._knows_kill_wait:
            return
        try:
            kill_wait_s = await self._slurm.kill_wait_s()
        except (ParseError, PermanentError) as error:
            log.warning("KillWait is taken to be Slurm's default: %s", error)
        else:
            self._settings = dataclasses.replace(self._settings, kill_wait_s=kill_wait_s)
        self._knows_kill_wait = True

    def _prepare(self, pod: PodRef, plan: PodPlan, nonce: Nonce, layout: AttemptLayout) -> None:
        script = render_script(
            plan,
            job_name=str(JobName(pod.namespace, pod.name, nonce)),
            layout=layout,
            # The interpreter itself, not the environment it was started from: an upgrade may
            # remove that while the job is queued, and the supervisor needs nothing of it.
            python=str(Path(sys.executable).resolve()),
            supervisor=str(self._zipapp),
        )
        spec = JobSpec(plan=plan, nonce=nonce, settings=self._settings)
        private_directory(Path(layout.root))
        write_atomically(Path(layout.spec), codec.dumps(spec))
        write_atomically(Path(layout.token), secrets.token_hex(32))
        write_atomically(Path(layout.script), script)
        record_step(self._paths, pod, Step.INTENT, nonce=nonce)

    async def _sbatch(self, pod: PodRef, layout: AttemptLayout) -> SlurmJobId:
        async with wait_for_lock(self._paths.submit_lock(pod.uid)) as lock_fd:
            return await self._slurm.submit(
                Submission(
                    script=Path(layout.script),
                    stdout_path=Path(layout.submit_output),
                    stderr_path=Path(layout.submit_errors),
                    lock_fd=lock_fd,
                )
            )

    async def _find(self, attempt: Attempt, layout: AttemptLayout) -> SlurmJobId | None:
        # An sbatch that outlived its kubelet holds this lock until it has its answer.
        private_directory(self._paths.pod_dir(attempt.pod.uid))
        async with wait_for_lock(self._paths.submit_lock(attempt.pod.uid)):
            pass
        output = await asyncio.to_thread(_read_text, Path(layout.submit_output))
        job_id = parse_submit_output(output)
        if job_id is not None:
            return job_id
        found = await self._slurm.find_jobs(attempt.job_name, since_s=attempt.intent_at_s - 60)
        return found[0].job_id if found else None

    def _revoke(self, layout: AttemptLayout) -> bool:
        private_directory(Path(layout.root))
        return claim(Path(layout.claim), REVOKED_BY_KUBELET)

    async def _submitted(self, pod: PodRef, nonce: Nonce, job_id: SlurmJobId) -> Attempt:
        await asyncio.to_thread(
            record_step, self._paths, pod, Step.SUBMITTED, nonce=nonce, job_id=job_id
        )
        journal = await asyncio.to_thread(read_pod, self._paths, pod.uid)
        for attempt in journal.attempts if journal else ():
            if attempt.nonce == nonce:
                return attempt
        raise TransientError(f"the journal of {pod} does not hold what was just written to it")

    async def _record(self, pod: PodRef, step: Step, nonce: Nonce) -> None:
        await asyncio.to_thread(record_step, self._paths, pod, step, nonce=nonce)


def is_revoked(paths: HpkPaths, uid: PodUid, nonce: Nonce) -> bool:
    """Whether the kubelet has taken this attempt's claim."""
    return _read_text(Path(paths.attempt(uid, nonce).claim)) == REVOKED_BY_KUBELET


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _job_of_claim(layout: AttemptLayout) -> SlurmJobId:
    words = _read_text(Path(layout.claim)).split()
    if len(words) < 2 or words[0] != "supervisor" or not words[1].isdigit():
        raise TransientError(f"{layout.claim} does not say whose it is")
    return SlurmJobId(int(words[1]))
