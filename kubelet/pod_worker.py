"""The pod worker: one task for each Pod UID, the only one that acts for it.

Whatever happens — the Pod changed, the supervisor spoke, Slurm did, a pause ended — wakes the same
`sync`, which looks at everything anew, lets `compute_actions` decide and acts. Newest update wins;
a failed step is tried again after a pause; nothing a pod does reaches another pod's worker.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpk.journal import Attempt, PodJournal, Step, read_pod, record_step
from hpk.model import codec
from hpk.model.errors import AdmissionError, PermanentError, TransientError
from hpk.model.frames import Stop
from hpk.model.ids import PodRef, PodUid
from hpk.model.job import Partition
from hpk.model.plan import PodPlan
from hpk.planning.admission import admit_pod
from hpk.planning.plan import plan_pod
from hpk.planning.site import SiteSettings
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths, write_atomically
from kubelet.actions import Actions, Deletion, PodView, compute_actions
from kubelet.apiserver import ApiError, Json
from kubelet.channel import Session
from kubelet.events import EventRecorder
from kubelet.launcher import Launcher
from kubelet.observations import Observation, Observations
from kubelet.outcome import pod_outcome
from kubelet.pleg import Pleg
from kubelet.pod_images import ImageProvider, PodImages, Spawn
from kubelet.pod_reporter import PodReporter
from kubelet.pod_status import Waiting
from kubelet.status_manager import StatusManager

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """What all workers share.

    :param spawn: starts a task that the kubelet watches over.
    :param partition: of a virtual node by its name.
    :param knows_partitions: whether Slurm has answered at all since the kubelet started.
    :param session: the open channel of an attempt.
    """

    paths: HpkPaths
    slurm: SlurmBackend
    site: SiteSettings
    images: ImageProvider
    launcher: Launcher
    pleg: Pleg
    observations: Observations
    statuses: StatusManager
    events: EventRecorder
    partition: Callable[[str], Partition | None]
    knows_partitions: Callable[[], bool]
    session: Callable[[Attempt], Session | None]
    spawn: Spawn


class PodWorker:
    """Brings one Pod to where it should be, and says how it is."""

    def __init__(self, pod: Json, services: WorkerServices) -> None:
        meta = pod["metadata"]
        self.ref = PodRef(meta["namespace"], meta["name"], PodUid(meta["uid"]))
        self.pod = pod
        self._services = services
        self._wake = asyncio.Event()
        self._has_object = True
        self._deletion: Deletion | None = None
        self._cancelled_at_s: float | None = None
        self._stop_sent: tuple[int, int] | None = None
        self._reporter = PodReporter(
            statuses=services.statuses, events=services.events, launcher=services.launcher
        )
        self._images = PodImages(
            provider=services.images,
            events=services.events,
            spawn=services.spawn,
            ready=self._wake.set,
        )

    # What happens to it

    def update(self, pod: Json) -> None:
        """The Pod changed."""
        self.pod = pod
        self._has_object = True
        if pod["metadata"].get("deletionTimestamp"):
            self._observe_deletion(gone=False)
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

    def object_missing(self) -> None:
        """The Pod is not in a new list: gone if its deletion had begun, else its job is kept."""
        if self._deletion is not None:
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
            try:
                async with asyncio.timeout(again_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def sync(self) -> tuple[bool, float | None]:
        """One look at the pod and what follows from it.

        1. read the journal and the observations, and let compute_actions decide;
        2. journal an observed deletion, before anything is done about it;
        3. recover a submission nobody has the id of, or launch the pod;
        4. watch the job; stop or cancel it;
        5. report the status;
        6. only then write down that the job has ended, so that no end goes unreported;
        7. delete the Pod object, then the pod's files.

        :returns: whether the worker is done, and when to look again (seconds, None: when woken).
        """
        journal = await asyncio.to_thread(read_pod, self._services.paths, self.ref.uid)
        view = self._view(journal)
        actions = compute_actions(view)
        if actions.journal_delete:
            await self._record(Step.DELETE)
        if actions.recover and view.attempt is not None:
            await self._services.launcher.recover(view.attempt)
            return False, 0
        if actions.launch:
            return False, await self._launch()
        if view.attempt is not None and (view.attempt.is_open or not view.is_over):
            self._services.pleg.track(view.attempt)
            await self._end_job(view.attempt, actions)
        if self._has_object and not (view.attempt is None and view.is_over):
            await self._reporter.report(self.pod, view)
        if actions.mark_ended and view.attempt is not None:
            await self._record(Step.ENDED, view.attempt)
        if view.is_over and view.attempt is not None and not view.attempt.is_open:
            self._services.pleg.untrack(view.attempt.nonce)
        if actions.finish_deletion:
            await self._services.statuses.finish_deletion(self.pod)
        if actions.forget:
            await self._forget(journal)
            return True, None
        return False, 0 if actions.mark_ended else actions.again_s

    def _view(self, journal: PodJournal | None) -> PodView:
        attempt = journal.current if journal else None
        seen = self._services.observations.get(attempt.nonce) if attempt else Observation()
        now_s = time.monotonic()
        phase = (self._services.statuses.latest(self.pod).get("status") or {}).get("phase")
        return PodView(
            has_object=self._has_object,
            is_over=phase in ("Succeeded", "Failed"),
            deletion=self._deletion,
            deletion_journalled=journal is not None and journal.deleted,
            attempt=attempt,
            seen=seen,
            outcome=pod_outcome(seen, now_s=now_s),
            cancelled_at_s=self._cancelled_at_s,
            now_s=now_s,
        )

    # Launching

    async def _launch(self) -> float | None:
        """Admit, fetch images, plan, submit. Returns when to look again."""
        partition = self._services.partition(self.pod["spec"].get("nodeName") or "")
        if partition is None:
            await self._reporter.report_waiting(self.pod, self._no_partition())
            return 30.0
        try:
            admit_pod(self.pod, self._services.site)
            images = await self._images.get(self.pod)
            if images is None:
                await self._reporter.report_waiting(self.pod, self._images.waiting)
                return self._images.again_s
            plan = plan_pod(self.pod, images=images, partition=partition, site=self._services.site)
        except AdmissionError as error:
            await self._reject(error.reason, str(error))
            return None
        return await self._submit(plan)

    def _no_partition(self) -> Waiting:
        if not self._services.knows_partitions():
            return Waiting(reason="SlurmUnavailable", message="Slurm has not answered yet")
        message = "Slurm does not show this node's partition to this user (any more)"
        return Waiting(reason="PartitionUnknown", message=message)

    async def _submit(self, plan: PodPlan) -> float | None:
        try:
            attempt = await self._services.launcher.submit(self.ref, plan)
        except PermanentError as error:
            await self._reject(error.reason or "SlurmRefused", str(error))
            return None
        except TransientError as error:
            reason = f"Slurm{error.reason}" if error.reason else "SlurmUnavailable"
            waiting = Waiting(reason=reason, message=str(error))
            await self._reporter.report_refusal(self.pod, waiting)
            raise
        log.info("pod submitted pod=%s uid=%s job=%s", self.ref, self.ref.uid, attempt.job_id)
        self._reporter.submitted(self.pod, attempt, plan)
        return 0

    async def _reject(self, reason: str, message: str) -> None:
        log.info("pod rejected pod=%s reason=%s", self.ref, reason)
        await self._reporter.reject(self.pod, reason, message)

    # Ending

    async def _end_job(self, attempt: Attempt, actions: Actions) -> None:
        if actions.stop is not None:
            await self._send_stop(attempt, actions.stop)
        if actions.cancel and attempt.job_id is not None:
            self._cancelled_at_s = time.monotonic()
            log.info("job cancelled pod=%s job=%s", self.ref, attempt.job_id)
            await self._services.slurm.cancel(attempt.job_id)
            self._services.pleg.hurry()

    async def _send_stop(self, attempt: Attempt, grace_period_s: int) -> None:
        session = self._services.session(attempt)
        key = (grace_period_s, id(session))
        if self._stop_sent == key:
            return
        if self._stop_sent is None:
            self._reporter.stopping(self.pod)
        frame = Stop(grace_period_s=grace_period_s)
        layout = self._services.paths.attempt(self.ref.uid, attempt.nonce)
        await asyncio.to_thread(write_atomically, Path(layout.stop_request), codec.dumps(frame))
        if session is not None:
            try:
                await session.send(frame)
            except OSError as error:
                log.info("stop not sent, the stop file stands pod=%s error=%s", self.ref, error)
        self._stop_sent = key

    async def _forget(self, journal: PodJournal | None) -> None:
        for attempt in journal.attempts if journal else ():
            self._services.pleg.untrack(attempt.nonce)
            self._services.observations.forget(attempt.nonce)
        self._services.statuses.forget(self.ref.uid)
        directory = self._services.paths.pod_dir(self.ref.uid)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        log.info("pod gone pod=%s uid=%s", self.ref, self.ref.uid)

    async def _record(self, step: Step, attempt: Attempt | None = None) -> None:
        await asyncio.to_thread(
            record_step,
            self._services.paths,
            self.ref,
            step,
            nonce=attempt.nonce if attempt else None,
        )
