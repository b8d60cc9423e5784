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
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hpk.images.errors import ERR_IMAGE_PULL, ImageError
from hpk.journal import Attempt, PodJournal, Step, read_pod, record_step
from hpk.model import codec
from hpk.model.errors import AdmissionError, ParseError, PermanentError, TransientError
from hpk.model.frames import Stop
from hpk.model.ids import PodRef, PodUid
from hpk.model.job import Partition
from hpk.model.plan import ImagePlan, PodPlan
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
from kubelet.node import timestamp
from kubelet.observations import Observation, Observations
from kubelet.outcome import Outcome, pod_outcome
from kubelet.pleg import Pleg
from kubelet.pod_status import StatusInput, Waiting, compute_status, queue_waiting, rejected_status
from kubelet.status_manager import StatusManager

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 1.0
_RETRY_MOST_S = 60.0
_IMAGE_RETRY_FIRST_S = 10.0
_IMAGE_RETRY_MOST_S = 300.0
_IMAGE_FAILURE_SHOWN_S = 5.0
"""How long a failed pull reads as such, before it reads as waiting for the next one."""


class ImageProvider(Protocol):
    """What a worker needs of hpk.images."""

    async def ensure(self, reference: str, *, pull_policy: str) -> ImagePlan:
        """The image, converted; raises ImageError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerServices:
    """What all workers share.

    :param spawn: starts a task that the kubelet watches over.
    :param partition: of a virtual node by its name.
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
    session: Callable[[Attempt], Session | None]
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(slots=True)
class _ImagePull:
    """The images of one pod, on their way."""

    task: asyncio.Task[None] | None = None
    images: dict[str, ImagePlan] = field(default_factory=dict)
    failure: ImageError | None = None
    failures: int = 0
    failed_at_s: float = 0.0
    again_at_s: float = 0.0

    def look_again_s(self, now_s: float) -> float | None:
        """When something is to be done about it; None while it runs, for its end is told."""
        if self.task is not None:
            return None
        shown_until_s = self.failed_at_s + _IMAGE_FAILURE_SHOWN_S
        return max(0.0, (shown_until_s if now_s < shown_until_s else self.again_at_s) - now_s)


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
        self._waiting = Waiting()
        self._pull = _ImagePull()
        self._plan: PodPlan | None = None
        self._cancelled_at_s: float | None = None
        self._stop_sent: tuple[int, int] | None = None
        self._reported_job = ""
        self._started: set[str] = set()

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

    def object_missing(self) -> None:
        """The Pod is not in a new list, and nobody saw it deleted: its job is kept."""
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
        await self._report(view)
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
            self._waiting = Waiting(
                reason="PartitionUnknown",
                message="Slurm does not show this node's partition to this user (any more)",
            )
            await self._report_waiting()
            return 30.0
        try:
            admit_pod(self.pod, self._services.site)
            images = await self._images()
            if images is None:
                await self._report_waiting()
                return self._pull.look_again_s(time.monotonic())
            plan = plan_pod(self.pod, images=images, partition=partition, site=self._services.site)
        except AdmissionError as error:
            await self._reject(error.reason, str(error))
            return None
        return await self._submit(plan)

    async def _submit(self, plan: PodPlan) -> float | None:
        try:
            attempt = await self._services.launcher.submit(self.ref, plan)
        except PermanentError as error:
            await self._reject(error.reason or "SlurmRefused", str(error))
            return None
        except TransientError as error:
            reason = f"Slurm{error.reason}" if error.reason else "SlurmUnavailable"
            if (self._waiting.reason, self._waiting.message) != (reason, str(error)):
                self._services.events.warning(self.pod, reason, str(error))
            self._waiting = Waiting(reason=reason, message=str(error))
            await self._report_waiting()
            raise
        self._waiting = Waiting()
        self._plan = plan
        log.info("pod submitted pod=%s uid=%s job=%s", self.ref, self.ref.uid, attempt.job_id)
        self._services.events.normal(
            self.pod,
            "SlurmJobSubmitted",
            f"Submitted as Slurm job {attempt.job_id} to partition {plan.partition}",
        )
        return 0

    async def _reject(self, reason: str, message: str) -> None:
        """Fail the Pod: it cannot run here as it is written (kubelet.go, rejectPod)."""
        log.info("pod rejected pod=%s reason=%s", self.ref, reason)
        self._services.events.warning(self.pod, reason, message)
        await self._services.statuses.update(
            self.pod, rejected_status(self.pod, reason, message, timestamp())
        )

    async def _images(self) -> Mapping[str, ImagePlan] | None:
        """The pod's images by container name; None while one is missing."""
        pull = self._pull
        wanted = {c["name"] for c in self.pod["spec"]["containers"]}
        if wanted <= pull.images.keys():
            return pull.images
        if pull.task is None and time.monotonic() >= pull.again_at_s:
            pull.task = self._services.spawn(self._pull_images())
            # A cached image takes no time worth a round of its own.
            await asyncio.wait([pull.task], timeout=0.5)
            if pull.task is not None:
                names = ", ".join(f'"{c["image"]}"' for c in self.pod["spec"]["containers"])
                self._services.events.normal(self.pod, "Pulling", f"Pulling image {names}")
        if pull.task is None and time.monotonic() >= pull.failed_at_s + _IMAGE_FAILURE_SHOWN_S:
            self._back_off_pull()
        return pull.images if wanted <= pull.images.keys() else None

    async def _pull_images(self) -> None:
        """Fetch every missing image, and wake the worker."""
        pull = self._pull
        try:
            for container in self.pod["spec"]["containers"]:
                if container["name"] not in pull.images:
                    pull.images[container["name"]] = await self._pull_image(container)
            self._waiting = Waiting()
        except ImageError as error:
            self._image_failed(error)
        finally:
            pull.task = None
            self._wake.set()

    async def _pull_image(self, container: Mapping[str, Any]) -> ImagePlan:
        reference = container["image"]
        image = await self._services.images.ensure(
            reference, pull_policy=container.get("imagePullPolicy", "IfNotPresent")
        )
        self._services.events.normal(
            self.pod, "Pulled", f'Container image "{reference}" is ready as {image.image_id}'
        )
        return image

    def _image_failed(self, error: ImageError) -> None:
        pull = self._pull
        pull.failures += 1
        pause_s = min(_IMAGE_RETRY_FIRST_S * 2 ** (pull.failures - 1), _IMAGE_RETRY_MOST_S)
        pull.failure, pull.failed_at_s = error, time.monotonic()
        pull.again_at_s = pull.failed_at_s + pause_s
        self._services.events.warning(self.pod, "Failed", str(error))
        self._services.events.warning(self.pod, "Failed", f"Error: {error.reason}")
        self._waiting = Waiting(reason=error.reason, message=str(error))

    def _back_off_pull(self) -> None:
        """Between two pulls, in the words of upstream's image manager."""
        error = self._pull.failure
        if error is None or error.reason != ERR_IMAGE_PULL:
            return
        if self._waiting.reason != "ImagePullBackOff":
            names = ", ".join(f'"{c["image"]}"' for c in self.pod["spec"]["containers"])
            self._services.events.normal(self.pod, "BackOff", f"Back-off pulling image {names}")
            message = f"Back-off pulling image {names}: {error.reason}: {error}"
            self._waiting = Waiting(reason="ImagePullBackOff", message=message)

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
            for container in self.pod["spec"]["containers"]:
                self._services.events.normal(
                    self.pod, "Killing", f"Stopping container {container['name']}"
                )
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

    # Reporting

    async def _report(self, view: PodView) -> None:
        if not self._has_object:
            return
        if view.attempt is None and view.is_over:
            return
        outcome = view.outcome
        expected = view.deletion is not None
        if outcome is not None and outcome.reason and not (view.is_over or expected):
            self._services.events.warning(self.pod, outcome.reason, outcome.message)
        self._report_queue(view)
        waiting = queue_waiting(view.seen.job) if view.attempt is not None else self._waiting
        await self._write_status(view.attempt, view.seen, outcome, waiting)

    async def _report_waiting(self) -> None:
        await self._write_status(None, Observation(), None, self._waiting)

    async def _write_status(
        self,
        attempt: Attempt | None,
        seen: Observation,
        outcome: Outcome | None,
        waiting: Waiting,
    ) -> None:
        plan = await self._plan_of(attempt)
        latest = self._services.statuses.latest(self.pod)
        status = compute_status(
            StatusInput(
                pod=latest,
                seen=seen,
                outcome=outcome,
                waiting=waiting,
                images={c.name: c.image for c in plan.containers} if plan else {},
                runtime=plan.runtime if plan else "",
                now=timestamp(),
            )
        )
        if not await self._services.statuses.update(self.pod, status):
            log.info("pod has gone from the API server pod=%s", self.ref)

    async def _plan_of(self, attempt: Attempt | None) -> PodPlan | None:
        if self._plan is None and attempt is not None:
            try:
                spec = await asyncio.to_thread(self._services.launcher.load_spec, attempt)
            except ParseError as error:
                log.warning("plan of %s: %s", self.ref, error)
                return None
            self._plan = spec.plan
        return self._plan

    def _report_queue(self, view: PodView) -> None:
        """An event for each new reason Slurm gives, and for each start nobody reported yet."""
        waiting = queue_waiting(view.seen.job)
        if waiting.reason != self._reported_job and waiting.message:
            self._services.events.normal(self.pod, "SlurmJobPending", waiting.message)
        self._reported_job = waiting.reason
        record = view.seen.record
        if record is None:
            return
        reported = {
            str(c.get("containerID") or "").rpartition("/")[2]
            for c in (self.pod.get("status") or {}).get("containerStatuses") or []
        }
        for container in record.containers:
            if container.state.started_at_s is None or container.container_id in self._started:
                continue
            self._started.add(container.container_id)
            if container.container_id in reported:
                continue
            self._services.events.normal(
                self.pod, "Started", f"Started container {container.name} on {record.host}"
            )

    async def _record(self, step: Step, attempt: Attempt | None = None) -> None:
        await asyncio.to_thread(
            record_step,
            self._services.paths,
            self.ref,
            step,
            nonce=attempt.nonce if attempt else None,
        )
