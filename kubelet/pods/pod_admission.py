"""From a Pod that has no job to one that has: admission, images, plan, submission.

What cannot run is rejected, what must wait says what for. How a submission becomes exactly one job
is kubelet.submission.submitter's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from hpk.model.errors import AdmissionError, PermanentError, TransientError
from hpk.model.ids import PodRef
from hpk.model.plan import PodPlan
from hpk.planning.admission import admit_pod
from hpk.planning.plan import plan_admitted_pod
from kubelet.api.apiserver import Json
from kubelet.back_off import doubled_s
from kubelet.pods.pod_images import PodImages
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.pod_state import PodState
from kubelet.pods.runtime_classes import NO_SANDBOX
from kubelet.pods.worker_services import WorkerServices
from kubelet.status.container_statuses import Waiting
from kubelet.submission.gate import NotYourTurnError

log = logging.getLogger(__name__)

_CONFIGURATION = ("CreateContainerConfigError", "CreateContainerError", NO_SANDBOX)
"""Reasons for which a container or its Pod waits, upstream: no Pod fails for them."""
_REFUSED_AGAIN_S = 60.0
_REFUSED_MOST_S = 600.0


def _is_always(pod: Json) -> bool:
    return (pod["spec"].get("restartPolicy") or "Always") == "Always"


def without_debuggers(pod: Json) -> Json:
    """The Pod as it was made.

    `kubectl debug` adds containers to a Pod that may not have been submitted yet: they are
    its supervisor's to start (kubelet.pods.pod_changes), never a reason to refuse the Pod.
    """
    spec = {name: value for name, value in pod["spec"].items() if name != "ephemeralContainers"}
    return {**pod, "spec": spec}


class PodAdmission:
    """Brings one pod into Slurm."""

    def __init__(
        self,
        ref: PodRef,
        services: WorkerServices,
        reporter: PodReporter,
        state: PodState,
        *,
        ready: Callable[[], None],
    ) -> None:
        """
        :param ready: called when an image has come or failed: it is time to launch again.
        """
        self._ref = ref
        self._services = services
        self._reporter = reporter
        self._state = state
        self._refusals = 0
        self._refused_until_s = 0.0
        self._held_until_s = 0.0
        self._refused_as: tuple[object, ...] = ()
        self._images = PodImages(
            provider=services.images, events=services.events, spawn=services.spawn, ready=ready
        )

    async def launch(self, pod: Json) -> float | None:
        """Admit, fetch images, plan, submit; the next step of these that can be taken now.

        :returns: when to look again (seconds, None: when woken).
        :raises TransientError: Slurm does not take it now; the Pod says why.
        """
        partition = self._services.partition(pod["spec"].get("nodeName") or "")
        if partition is None:
            await self._reporter.report_waiting(pod, self._no_partition())
            return 30.0
        if (held_for_s := self._held_until_s - time.monotonic()) > 0:
            return held_for_s
        refused_for_s = self._refused_until_s - time.monotonic()
        if refused_for_s > 0 and self._refused_as == self._circumstances(pod):
            return refused_for_s
        planned = without_debuggers(pod)
        try:
            site = await self._services.runtime_classes.site_of(pod, self._services.site)
            admit_pod(planned, site)
            images = await self._images.get(pod)
            if images is None:
                await self._reporter.report_waiting(pod, self._images.waiting)
                return self._images.again_s
            plan = plan_admitted_pod(planned, images=images, partition=partition, site=site)
        except AdmissionError as error:
            return await self._refuse(pod, error.reason, str(error))
        return await self._submit(pod, plan)

    async def begin_again(self, pod: Json, reason: str, message: str, *, after_s: float) -> None:
        """The pod's job broke down before anything ran in it: submit the pod once more, later."""
        self._held_until_s = time.monotonic() + after_s
        again = f"{message}; nothing of the pod had begun, so it is submitted again"
        await self._reporter.report_refusal(pod, Waiting(reason=reason, message=again))

    def cancel(self) -> None:
        """The pod is to go: nothing is fetched for it any more."""
        self._images.cancel()

    def _no_partition(self) -> Waiting:
        if not self._services.knows_partitions():
            return Waiting(reason="SlurmUnavailable", message="Slurm has not answered yet")
        message = "Slurm does not show this node's partition to this user (any more)"
        return Waiting(reason="PartitionUnknown", message=message)

    async def _submit(self, pod: Json, plan: PodPlan) -> float | None:
        try:
            created = pod["metadata"].get("creationTimestamp") or ""
            attempt = await self._services.submitter.submit(
                self._ref, plan, created=created, under_way=self._state.submission
            )
        except PermanentError as error:
            return await self._refuse(pod, error.reason or "SlurmRefused", str(error))
        except TransientError as error:
            reason = f"Slurm{error.reason}" if error.reason else "SlurmUnavailable"
            waiting = Waiting(reason=reason, message=str(error))
            await self._reporter.report_refusal(pod, waiting)
            if isinstance(error, NotYourTurnError):
                return None
            raise
        self._refusals = 0
        log.info("pod submitted pod=%s uid=%s job=%s", self._ref, self._ref.uid, attempt.job_id)
        self._state.planned(attempt, plan)
        self._reporter.submitted(attempt, plan.partition)
        return 0

    async def _refuse(self, pod: Json, reason: str, message: str) -> float | None:
        """The pod cannot run here as it is written, or as things are.

        A pod that is always to run waits until somebody changes something: whoever owns it would
        make the next one at once, sixty in a minute. Owners of the others count failures, but for
        what keeps a container waiting upstream.

        :returns: when to look again (seconds, None: when woken).
        """
        log.info("pod refused pod=%s reason=%s", self._ref, reason)
        is_held = reason in _CONFIGURATION or _is_always(pod)
        if not is_held:
            await self._reporter.reject(pod, reason, message)
            return None
        again_s = doubled_s(self._refusals, first_s=_REFUSED_AGAIN_S, most_s=_REFUSED_MOST_S)
        self._refusals += 1
        self._refused_until_s = time.monotonic() + again_s
        self._refused_as = self._circumstances(pod)
        waiting = Waiting(reason=reason, message=message)
        await self._reporter.report_refusal(pod, waiting, for_good=True)
        return again_s

    def _circumstances(self, pod: Json) -> tuple[object, ...]:
        """What a refusal rests on and may change while this kubelet runs; the configuration does
        not."""
        meta = pod["metadata"]
        partition = self._services.partition(pod["spec"].get("nodeName") or "")
        return meta.get("generation"), meta.get("annotations"), meta.get("labels"), partition
