"""Tells a running pod's supervisor what has changed in its Pod: its deadline, ephemeral containers.

A Pod that waits in Slurm's queue has no supervisor yet; it is told when it comes. Nothing of this
is written down, for it all follows from the Pod.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from hpk.journal import Attempt
from hpk.model.errors import AdmissionError
from hpk.model.frames import UPDATES_VERSION, PodUpdate
from hpk.model.ids import PodRef
from hpk.model.plan import ContainerPlan, PodPlan
from hpk.planning.base.containers import PodContainer, ephemeral_containers
from hpk.planning.base.fields import get_integer
from hpk.planning.plan import plan_ephemeral
from kubelet.api.apiserver import Json
from kubelet.link.session import Session
from kubelet.pods.pod_images import PodImages
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.pod_state import PodState
from kubelet.pods.worker_services import WorkerServices
from kubelet.status.container_statuses import Held, Waiting

log = logging.getLogger(__name__)

_SEND_WITHIN_S = 5.0
_OLD_SUPERVISOR = Waiting(
    reason="UnsupportedField",
    message="the pod was started by an older hpk, whose supervisor knows no ephemeral containers",
)


class PodChanges:
    """Of one pod."""

    def __init__(
        self,
        ref: PodRef,
        services: WorkerServices,
        state: PodState,
        reporter: PodReporter,
        *,
        ready: Callable[[], None],
    ) -> None:
        """
        :param ready: called when an image has come or failed: it is time to tell again.
        """
        self._ref = ref
        self._services = services
        self._state = state
        self._reporter = reporter
        self._ready = ready
        self._images: dict[str, PodImages] = {}
        self._planned: dict[str, ContainerPlan] = {}
        self._refused: dict[str, Waiting] = {}
        self._sent: tuple[PodUpdate, int] | None = None

    async def tell(self, pod: Json, attempt: Attempt) -> float | None:
        """Tell what has changed, once in each of the supervisor's sessions.

        :returns: when to look again (seconds, None: when woken).
        """
        plan = await self._state.plan(attempt)
        if plan is None:
            return None
        again_s = await self._plan_added(pod, plan)
        added = tuple(self._planned.values())
        if plan.ephemeral_containers != added:
            plan = replace(plan, ephemeral_containers=added)
            self._state.planned(attempt, plan)
        deadline_s = get_integer(pod["spec"], "activeDeadlineSeconds", "spec", None)
        session = self._services.session(attempt)
        if session is None or (deadline_s == plan.active_deadline_s and not added):
            return again_s
        if session.protocol < UPDATES_VERSION:
            self._hold(dict.fromkeys(self._planned, _OLD_SUPERVISOR))
            return again_s
        await self._send(session, PodUpdate(deadline_s, added))
        return again_s

    def cancel(self) -> None:
        """The pod is to go: nothing is fetched for it any more."""
        for images in self._images.values():
            images.cancel()

    async def _plan_added(self, pod: Json, plan: PodPlan) -> float | None:
        """Plan those whose image is there; each by itself, for one must not wait for another."""
        waiting: dict[str, Waiting] = {}
        again: list[float] = []
        for container in ephemeral_containers(pod):
            name = str(container.spec.get("name"))
            if name in self._planned or name in self._refused:
                continue
            images = self._images.get(name)
            if images is None:
                images = self._images[name] = PodImages(
                    provider=self._services.images,
                    events=self._services.events,
                    spawn=self._services.spawn,
                    ready=self._ready,
                )
            found = await images.get({**pod, "spec": {"containers": [container.spec]}})
            if found is None:
                waiting[name] = images.waiting
                again += [] if images.again_s is None else [images.again_s]
                continue
            try:
                self._planned[name] = plan_ephemeral(pod, container, found[name], plan)
            except AdmissionError as error:
                self._refuse(pod, container, error)
        self._reporter.ephemeral = Held(waiting=waiting, refused=dict(self._refused))
        return min(again, default=None)

    def _refuse(self, pod: Json, container: PodContainer, error: AdmissionError) -> None:
        """It alone: the Pod was admitted long ago."""
        name = str(container.spec.get("name"))
        self._refused[name] = Waiting(reason=error.reason, message=str(error))
        self._services.events.warning(pod, error.reason, str(error))

    def _hold(self, refused: dict[str, Waiting]) -> None:
        held = self._reporter.ephemeral
        self._reporter.ephemeral = replace(held, refused={**held.refused, **refused})

    async def _send(self, session: Session, update: PodUpdate) -> None:
        key = (update, session.number)
        if self._sent == key:
            return
        try:
            async with asyncio.timeout(_SEND_WITHIN_S):
                await session.send(update)
        except OSError as error:
            # A session that broke is told of: then the next one is.
            log.warning("change not sent pod=%s error=%s", self._ref, error)
            return
        self._sent = key
        if update.ephemeral_containers:
            session.bundle_stale.set()
