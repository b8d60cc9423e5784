"""From a PodPlan to exactly one Slurm job, whatever dies on the way, and no faster than Slurm can.

The order is the point: files, then the journalled intent, then sbatch, then its answer in the
journal. The back end finds again what a killed kubelet had submitted; a submission that left no
trace is revoked, by taking its claim, before there is another.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from hpk.durable import claim, private_directory
from hpk.journal import Attempt, PodJournal, Step, record_step
from hpk.model import codec
from hpk.model.errors import ParseError, PermanentError, TransientError
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.layout import AttemptLayout
from hpk.model.placement import Placement
from hpk.model.plan.job_spec import JobSpec, SupervisorSettings
from hpk.model.plan.pod import PodPlan
from hpk.slurm.base import SlurmBackend
from hpk.slurm.refusals import SUBMIT_LIMIT, UNKNOWN, UNREACHABLE
from hpk.statefs import HpkPaths
from kubelet.shared_files import SharedFiles
from kubelet.submission.attempt_files import AttemptFiles
from kubelet.submission.gate import NotYourTurnError, SubmitGate
from kubelet.submission.repeated import RepeatedRefusals
from kubelet.submission.slots import Slots

log = logging.getLogger(__name__)

Submitted = Callable[[PodJournal, str], None]
UnderWay = Callable[[], AbstractAsyncContextManager[Submitted]]
REVOKED_BY_KUBELET = "revoked by the kubelet\n"
T = TypeVar("T")

_AT_ONCE = 8
"""How many sbatch run at once: a thousand pods must not be a thousand processes."""
_TAIL_BYTES = 4096
_LAST_WORDS_MOST = 200
_EVERYBODY = ""
"""The scope of what holds for each Pod, whatever it asks for."""


class Submitter:
    """Submits attempts and finds out what became of those nobody has the id of.

    All Pods that have no job yet stand in one queue here. A slot is had by the oldest of those who
    ask; where Slurm takes no more one of them tries and the others are told so at once, to wait
    until they are called.
    """

    def __init__(
        self,
        *,
        paths: HpkPaths,
        files: SharedFiles,
        slurm: SlurmBackend,
        settings: SupervisorSettings,
        zipapp: Path,
        call: Callable[[PodUid], None],
    ) -> None:
        """
        :param call: tells a Pod's worker that it is its turn to submit.
        """
        self._paths = paths
        self._slurm = slurm
        self._shared = files
        self._files = AttemptFiles(paths=paths, settings=settings, zipapp=zipapp)
        self._call = call
        self._knows_kill_wait = False
        self._refusals = RepeatedRefusals()
        self._gate = SubmitGate()
        self._slots = Slots(_AT_ONCE)
        self._timer: asyncio.TimerHandle | None = None

    async def submit(
        self, pod: PodRef, plan: PodPlan, *, created: str, under_way: UnderWay
    ) -> Attempt:
        """Start a new attempt, or the one that was refused once more.

        :param created: the Pod's creationTimestamp.
        :param under_way: entered for as long as the Pod's journal may change; what it gives is told
            the journal and the attempt's token, once they are known.
        :raises PermanentError: Slurm refuses it for good.
        :raises NotYourTurnError: Slurm takes no more for now; the Pod's worker is called.
        :raises TransientError: not now; nothing of the attempt is in Slurm, unless the reason is
            ``Unknown``: then the journal holds it open, to be recovered.
        """
        early = self._refusals.too_early(pod.uid, plan, now_s=time.monotonic())
        if early is not None:
            raise early
        try:
            async with self._slots.taken(created):
                scopes = (_EVERYBODY, limit_scope(plan))
                self._gate.enter(pod.uid, scopes, created, now_s=time.monotonic())
                async with under_way() as submitted:
                    journal, token = await self._submit(pod, plan, created)
                    submitted(journal, token)
                    return journal.attempts[-1]
        finally:
            self._call_next()

    async def _submit(self, pod: PodRef, plan: PodPlan, created: str) -> tuple[PodJournal, str]:
        try:
            await self._learn_kill_wait()
            submitted = await self._sbatch(pod, plan)
        except TransientError as error:
            judged = self._judge(pod, plan, error, created)
            if judged is error:
                raise
            raise judged from error
        except BaseException:
            self._gate.forget(pod.uid)
            raise
        self._gate.accepted(pod.uid, now_s=time.monotonic())
        self._refusals.forget(pod.uid)
        return submitted

    async def _sbatch(self, pod: PodRef, plan: PodPlan) -> tuple[PodJournal, str]:
        journal, token = await self._in_turn(pod, self._files.prepare, pod, plan)
        attempt = journal.attempts[-1]
        layout = self._paths.attempt(pod.uid, attempt.nonce)
        try:
            job_id = await self._slurm.submit(Path(layout.script), directory=Path(layout.root))
        except (PermanentError, TransientError) as error:
            if error.reason != UNKNOWN:
                await self._record(pod, Step.REFUSED, attempt.nonce)
            raise
        attempt = await self._submitted(attempt, job_id)
        return dataclasses.replace(journal, attempts=(attempt,)), token

    def _judge(
        self, pod: PodRef, plan: PodPlan, error: TransientError, created: str
    ) -> TransientError | PermanentError:
        """What a refusal means for this Pod and for the others."""
        now_s = time.monotonic()
        if error.reason == SUBMIT_LIMIT:
            self._gate.refused(pod.uid, limit_scope(plan), error, created, now_s=now_s)
        elif error.reason in (UNREACHABLE, UNKNOWN):
            self._gate.refused(pod.uid, _EVERYBODY, error, created, now_s=now_s)
        else:
            self._gate.forget(pod.uid)
            return self._refusals.judge(pod.uid, plan, error, now_s=now_s)
        if error.reason == UNKNOWN:
            return error
        return NotYourTurnError(error.message, reason=error.reason)

    async def recover(self, attempt: Attempt) -> Attempt | None:
        """The attempt with its job's id; None if it never got one and never will."""
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        await self._shared.do(private_directory, Path(layout.root))
        job_id = await self._slurm.recover(
            attempt.job_name, since_s=attempt.intent_at_s, directory=Path(layout.root)
        )
        if job_id is None and await self._in_turn(attempt.pod, _revoke, layout):
            log.info("submission revoked pod=%s nonce=%s", attempt.pod, attempt.nonce)
            await self._record(attempt.pod, Step.REVOKED, attempt.nonce)
            return None
        if job_id is None:
            job_id = await self._shared.do(_job_of_claim, layout)
        log.info("submission recovered pod=%s job=%s", attempt.pod, job_id)
        self._gate.accepted(attempt.pod.uid, now_s=time.monotonic())
        self._call_next()
        return await self._submitted(attempt, job_id)

    async def revoke(self, attempt: Attempt) -> bool:
        """Take back an attempt whose job is over: it can never run.

        :returns: False where its supervisor had begun.
        :raises OSError: it cannot be written down now.
        """
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        if not await self._in_turn(attempt.pod, _revoke, layout):
            return False
        log.info("attempt never began pod=%s job=%s", attempt.pod, attempt.job_id)
        await self._record(attempt.pod, Step.REVOKED, attempt.nonce)
        return True

    async def last_words(self, attempt: Attempt) -> str:
        """The last line of the output of an attempt's job, as it may be shown; "" where there is
        none. The attempt's files go when the next begins."""
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        try:
            tail = await self._shared.do(_tail, Path(layout.job_output))
        except OSError:
            return ""
        lines = [line.strip() for line in tail.decode(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "")
        return "".join(char if char.isprintable() else "?" for char in last)[:_LAST_WORDS_MOST]

    def job_ended(self) -> None:
        """There may be room under a limit of Slurm's."""
        self._gate.room_was_made(now_s=time.monotonic())
        self._call_next()

    def forget(self, uid: PodUid) -> None:
        """Nothing of the pod is left."""
        self._gate.forget(uid)
        self._refusals.forget(uid)
        self._call_next()

    def load_spec(self, attempt: Attempt) -> JobSpec:
        """The plan the attempt was submitted with.

        :raises ParseError: pod.json is damaged or gone.
        """
        layout = self._paths.attempt(attempt.pod.uid, attempt.nonce)
        try:
            return codec.loads(JobSpec, Path(layout.spec).read_bytes())
        except OSError as error:
            raise ParseError(f"{layout.spec}: {error.strerror}") from error

    def _call_next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_s = time.monotonic()
        called, again_s = self._gate.call(now_s=now_s)
        if again_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(again_s - now_s, 0.01), self._call_next)
        for uid in called:
            self._call(uid)

    async def _learn_kill_wait(self) -> None:
        """Ask Slurm, once, how long a supervisor has when Slurm ends its job."""
        if self._knows_kill_wait:
            return
        try:
            kill_wait_s = await self._slurm.kill_wait_s()
        except (ParseError, PermanentError) as error:
            log.warning("KillWait is taken to be Slurm's default: %s", error)
        else:
            settings = dataclasses.replace(self._files.settings, kill_wait_s=kill_wait_s)
            self._files = dataclasses.replace(self._files, settings=settings)
        self._knows_kill_wait = True

    async def _submitted(self, attempt: Attempt, job_id: SlurmJobId) -> Attempt:
        placed = dataclasses.replace(attempt, placement=Placement(job_id))
        step = partial(record_step, nonce=placed.nonce, placement=placed.placement)
        await self._in_turn(placed.pod, step, self._paths, placed.pod, Step.SUBMITTED)
        return placed

    async def _record(self, pod: PodRef, step: Step, nonce: Nonce) -> None:
        await self._in_turn(pod, partial(record_step, nonce=nonce), self._paths, pod, step)

    async def _in_turn(self, pod: PodRef, function: Callable[..., T], *arguments: Any) -> T:
        return await self._shared.do_in_turn(pod.uid, function, *arguments)


def limit_scope(plan: PodPlan) -> Hashable:
    """Whom a submit limit holds for that this Pod has met: Slurm's limits are an association's, a
    QOS's or a partition's."""
    options = {option.name: option.value for option in plan.options}
    return plan.partition, options.get("account"), options.get("qos")


def _revoke(layout: AttemptLayout) -> bool:
    return claim(layout.claim, REVOKED_BY_KUBELET)


def _tail(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, _TAIL_BYTES, max(0, os.fstat(fd).st_size - _TAIL_BYTES))
    finally:
        os.close(fd)


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
