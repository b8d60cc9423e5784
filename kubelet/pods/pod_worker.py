"""The pod worker: one task for each Pod UID, the only one that acts for it.

Whatever happens — the Pod changed, the supervisor spoke, Slurm did, a pause ended — wakes the same
`sync`, which looks at everything anew, lets `compute_actions` decide and acts. Newest update wins;
a failed step is tried again after a pause; nothing a pod does reaches another pod's worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial

from hpk.journal import Attempt, PodJournal, Step
from hpk.model.errors import TransientError
from hpk.model.frames import StatusAck
from hpk.model.ids import Nonce, PodRef, PodUid
from hpk.model.record import PodPhase
from hpk.trees import remove_tree
from kubelet.api.apiserver import ApiError, Json
from kubelet.back_off import doubled_s
from kubelet.evidence.observations import Observation
from kubelet.evidence.outcome import Outcome, pod_outcome
from kubelet.pods.actions import Actions, Deletion, PodView, compute_actions
from kubelet.pods.pod_admission import PodAdmission
from kubelet.pods.pod_changes import PodChanges
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.pod_state import PodState
from kubelet.pods.pod_stop import PodStop
from kubelet.pods.worker_services import WorkerServices
from kubelet.status.pod_phase import TERMINAL

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 60.0
_BEGIN_AGAIN_S = 5.0
"""How soon a pod is submitted again whose job broke down before it began; twice that each time."""
_BEGIN_AGAIN_MOST_S = 300.0
_WRITE_AGAIN_S = 5.0
_FIRST_WORD_S = 6.0
"""How long a pod that was just submitted waits for Slurm's first word about its job, to write one
status instead of two."""
_SEND_WITHIN_S = 5.0
_BATCH_S = 0.1
"""The least time between the end of a sync and a next one that something woke."""


class PodWorker:
    """Brings one Pod to where it should be, and says how it is."""

    def __init__(self, pod: Json, services: WorkerServices) -> None:
        meta = pod["metadata"]
        self.ref = PodRef(meta["namespace"], meta["name"], PodUid(meta["uid"]))
        self.pod = pod
        self.since_s = time.monotonic()
        """When the pod was first heard of."""
        self._services = services
        self._wake = asyncio.Event()
        self._has_object = True
        self._deletion: Deletion | None = None
        self._cancelled_for: Outcome | None = None
        self._over_since_s: float | None = None
        self._began: Nonce | None = None
        self._kept_told = (0, 0)
        self._launched_at_s: float | None = None
        self.state = PodState(
            self.ref, paths=services.paths, files=services.files, submitter=services.submitter
        )
        self._reporter = PodReporter(
            statuses=services.statuses, events=services.events, state=self.state
        )
        self._admission = PodAdmission(
            self.ref, services, self._reporter, self.state, ready=self._wake.set
        )
        self._stop = PodStop(self.ref, services, self._reporter)
        self._changes = PodChanges(
            self.ref, services, self.state, self._reporter, ready=self._wake.set
        )

    # What happens to it

    def update(self, pod: Json) -> None:
        """The Pod changed."""
        is_known = self._has_object and self._services.statuses.is_own_write(pod, self.pod)
        deletion = self._deletion
        self.pod = pod
        self._has_object = True
        if pod["metadata"].get("deletionTimestamp"):
            self._observe_deletion(gone=False)
        if not is_known or self._deletion != deletion:
            self._wake.set()

    def object_gone(self, pod: Json) -> None:
        """The Pod's deletion was observed."""
        self.pod = pod
        self._has_object = False
        self._observe_deletion(gone=True)
        self._wake.set()

    @classmethod
    def of_absent(
        cls, journal: PodJournal, services: WorkerServices, *, deleted: bool
    ) -> PodWorker:
        """A worker for a Pod that only its journal knows.

        :param deleted: its deletion was observed once, so it is brought to its end; else its job
            is kept (the API server's store may have been emptied or restored).
        """
        ref = journal.pod
        meta = {"namespace": ref.namespace, "name": ref.name, "uid": ref.uid}
        worker = cls({"metadata": meta, "spec": {"containers": []}}, services)
        worker._has_object = False
        if deleted:
            worker._observe_deletion(gone=True)
        return worker

    @property
    def has_object(self) -> bool:
        """Whether the API server has the Pod, as far as is known."""
        return self._has_object

    def object_missing(self, *, was_deleted: bool) -> None:
        """The Pod is not in a new list: gone if its deletion had begun or must have, else its job
        is kept."""
        if self._deletion is not None or (was_deleted and self._has_object):
            self.object_gone(self.pod)
            return
        if self._has_object:
            log.warning("pod is unknown to the API server, its job is kept pod=%s", self.ref)
        self._has_object = False
        self._wake.set()

    def nudge(self) -> None:
        """Something about the pod was observed."""
        self._wake.set()

    def _observe_deletion(self, *, gone: bool) -> None:
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds")
        grace_period_s = int(grace) if grace is not None else 30
        since = self._deletion.observed_at_s if self._deletion else time.monotonic()
        if gone and self._deletion is None:
            grace_period_s = 0
        self._admission.cancel()
        self._changes.cancel()
        self._deletion = Deletion(
            grace_period_s=grace_period_s, observed_at_s=since, object_gone=gone
        )

    # Its life

    async def run(self) -> None:
        """Sync whenever woken, until nothing of the pod is left."""
        retry_s = _RETRY_FIRST_S
        while True:
            self._wake.clear()
            again_s: float | None
            try:
                done, again_s = await self.sync()
                if done:
                    return
                retry_s = _RETRY_FIRST_S
            except (ApiError, TransientError, OSError) as error:
                log.warning("sync failed, trying again pod=%s error=%s", self.ref, error)
                again_s, retry_s = retry_s, min(retry_s * 2, _RETRY_MOST_S)
            except Exception:
                log.exception("sync failed, trying again pod=%s", self.ref)
                again_s, retry_s = retry_s, min(retry_s * 2, _RETRY_MOST_S)
            ended_s = time.monotonic()
            try:
                async with asyncio.timeout(again_s):
                    await self._wake.wait()
            except TimeoutError:
                continue
            # What happens close together is looked at together.
            await asyncio.sleep(max(0.0, ended_s + _BATCH_S - time.monotonic()))

    async def sync(self) -> tuple[bool, float | None]:
        """One look at the pod and what follows from it.

        1. look at what is known, and let compute_actions decide;
        2. journal an observed deletion, before anything is done about it;
        3. recover a submission nobody has the id of, launch the pod, or take back an attempt that
           never began;
        4. watch the job; stop or cancel it, or tell its supervisor what has changed in the Pod;
        5. report the status;
        6. only then write down that the job has ended, so that no end goes unreported;
        7. delete the Pod object, then the pod's files.

        What cannot be written down, on a full home say, keeps no pod from being stopped: it is
        tried again, and all that follows from it is found out again by a kubelet that did not read
        it.

        :returns: whether the worker is done, and when to look again (seconds, None: when woken).
        """
        self._services.counts["syncs"] += 1
        await self.state.load()
        view = self._view()
        actions = compute_actions(view)
        told_again_s: float | None = None
        written = not actions.journal_delete or await self.state.record(Step.DELETE)
        if actions.recover and view.attempt is not None:
            async with self.state.submission():
                await self._services.submitter.recover(view.attempt)
            return False, 0
        if actions.launch:
            again_s = await self._admission.launch(self.pod)
            self._launched_at_s = time.monotonic()
            return False, again_s
        if actions.revoke and view.attempt is not None and view.outcome is not None:
            await self._revoke(view.attempt, view.outcome)
            return False, 0
        if view.attempt is not None and (view.attempt.is_open or not view.is_over):
            self._services.pleg.track(view.attempt)
            if actions.stop is not None:
                written &= await self._stop.stop(self.pod, view.attempt, actions.stop)
            elif self._has_object and view.deletion is None and view.outcome is None:
                told_again_s = await self._changes.tell(self.pod, view.attempt)
        try:
            first_word_s = self._first_word_s(view)
            if self._has_object and not first_word_s and self._is_worth_telling(view, actions):
                await self._reporter.report(self.pod, view)
                await self._tell_kept(view)
        finally:
            if actions.cancel and view.attempt is not None:
                # After the report: it says why, and Slurm will only say that it was cancelled.
                self._cancelled_for = view.outcome
                await self._stop.cancel(view.attempt)
        if actions.mark_ended and view.attempt is not None:
            written &= await self.state.record(Step.ENDED, view.attempt)
            self._services.submitter.job_ended()
        if view.is_over and view.attempt is not None and not view.attempt.is_open:
            self._services.pleg.untrack(view.attempt.nonce)
        if actions.finish_deletion:
            await self._services.statuses.finish_deletion(self.pod)
        if actions.forget:
            await self._forget()
            return True, None
        if not written:
            return False, min(_WRITE_AGAIN_S, actions.again_s or _WRITE_AGAIN_S)
        if first_word_s:
            return False, min(first_word_s, actions.again_s or first_word_s)
        if actions.mark_ended:
            return False, 0
        times = (actions.again_s, told_again_s)
        return False, min((item for item in times if item is not None), default=None)

    async def _tell_kept(self, view: PodView) -> None:
        """The pod's end is in the API server: its supervisor need not keep it any longer.

        A kubelet that only had it in memory, and died while the home took nothing, lost it.
        """
        record, session = view.seen.record, None
        if view.attempt is not None and view.outcome is not None:
            session = self._services.session(view.attempt)
        if record is None or record.phase is not PodPhase.FINISHED or session is None:
            return
        told = (session.number, record.seq)
        if told == self._kept_told:
            return
        self._kept_told = told
        with contextlib.suppress(OSError):  # the next session is told again
            async with asyncio.timeout(_SEND_WITHIN_S):
                await session.send(StatusAck(seq=record.seq))

    def _first_word_s(self, view: PodView) -> float:
        """How long to wait for what Slurm will say of a new job in a moment; 0.0 for not at all."""
        is_known = view.seen.job is not None or view.seen.record is not None
        if self._launched_at_s is None or view.attempt is None:
            return 0.0
        if is_known or view.outcome is not None or view.deletion is not None:
            return 0.0
        return max(0.0, self._launched_at_s + _FIRST_WORD_S - view.now_s)

    def _view(self) -> PodView:
        journal, attempt = self.state.journal, self.state.current
        seen = self._services.observations.get(attempt.nonce) if attempt else Observation()
        now_s = time.monotonic()
        phase = (self._services.statuses.latest(self.pod).get("status") or {}).get("phase")
        may_begin_again = attempt is not None and attempt.nonce != self._began
        may_be_free = may_begin_again and self._deletion is None and phase not in TERMINAL
        outcome = self._cancelled_for or pod_outcome(seen, now_s=now_s, may_be_free=may_be_free)
        if phase not in TERMINAL or outcome is not None:
            self._over_since_s = None
        elif self._over_since_s is None:
            self._over_since_s = now_s
        grace = self.pod["spec"].get("terminationGracePeriodSeconds")
        return PodView(
            has_object=self._has_object,
            is_over=phase in TERMINAL,
            deletion=self._deletion,
            deletion_journalled=journal is not None and journal.deleted,
            attempt=attempt,
            seen=seen,
            outcome=outcome,
            cancelled_at_s=self._stop.cancelled_at_s,
            now_s=now_s,
            over_since_s=self._over_since_s,
            grace_period_s=max(int(grace), 1) if grace is not None else 30,
            may_begin_again=may_begin_again,
        )

    async def _revoke(self, attempt: Attempt, outcome: Outcome) -> None:
        broke_down = self.state.journal.broke_down if self.state.journal is not None else 0
        async with self.state.submission():
            is_free = await self._services.submitter.revoke(attempt)
        if not is_free:
            self._began = attempt.nonce
            return
        self._services.submitter.job_ended()
        self._services.pleg.untrack(attempt.nonce)
        self._services.observations.forget(attempt.nonce)
        after_s = doubled_s(broke_down, first_s=_BEGIN_AGAIN_S, most_s=_BEGIN_AGAIN_MOST_S)
        message = outcome.message
        if said := await self._services.submitter.last_words(attempt):
            message += f"; the last line of its output was: {said}"
        await self._admission.begin_again(self.pod, outcome.reason, message, after_s=after_s)

    def _is_worth_telling(self, view: PodView, actions: Actions) -> bool:
        """Whether the status says anything that lasts: not right before a deleted Pod's job is
        cancelled, whose end will be told; nor right before the object itself goes, where nothing
        has run and no finalizer keeps it for somebody who wants to know."""
        if view.attempt is None and view.is_over:
            return False
        if actions.finish_deletion and view.seen.record is None:
            return bool(self.pod["metadata"].get("finalizers"))
        return not (actions.cancel and view.deletion is not None and view.outcome is None)

    # What is left of it

    async def _forget(self) -> None:
        for attempt in self.state.attempts:
            self._services.pleg.untrack(attempt.nonce)
            self._services.observations.forget(attempt.nonce)
        self._services.statuses.forget(self.ref.uid)
        directory = self._services.paths.pod_dir(self.ref.uid)
        await self._services.files.do_in_turn(self.ref.uid, partial(remove_tree, directory))
        log.info("pod gone pod=%s uid=%s", self.ref, self.ref.uid)
