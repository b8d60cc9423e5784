"""From a Pod that has no job to one that has: admission, images, plan, submission.

What cannot run is rejected, what must wait says what for. How a submission becomes exactly one job
is kubelet.submission.submitter's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hpk.model.errors import AdmissionError, PermanentError, TransientError
from hpk.model.ids import PodRef
from hpk.model.plan import PodPlan
from hpk.planning.admission import admit_pod
from hpk.planning.plan import plan_pod
from kubelet.api.apiserver import Json
from kubelet.pods.pod_images import PodImages
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.pod_state import PodState
from kubelet.pods.worker_services import WorkerServices
from kubelet.status.container_statuses import Waiting

log = logging.getLogger(__name__)


def without_debuggers(pod: Json) -> Json:
    """The Pod as it was made.

    `kubectl debug` adds containers to a Pod that may not have been submitted yet: only they are
    refused (kubelet.status.container_statuses, refused_debugger), never the Pod.
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
        planned = without_debuggers(pod)
        try:
            admit_pod(planned, self._services.site)
            images = await self._images.get(pod)
            if images is None:
                await self._reporter.report_waiting(pod, self._images.waiting)
                return self._images.again_s
            plan = plan_pod(planned, images=images, partition=partition, site=self._services.site)
        except AdmissionError as error:
            await self._reject(pod, error.reason, str(error))
            return None
        return await self._submit(pod, plan)

    def cancel(self) -> None:
        """The pod is to go: nothing is fetched for it any more."""
        self._images.cancel()

    def _no_partition(self) -> Waiting:
        if not self._services.knows_partitions():
            return Waiting(reason="SlurmUnavailable", message="Slurm has not answered yet")
        message = "Slurm does not show this node's partition to this user (any more)"
        return Waiting(reason="PartitionUnknown", message=message)

    async def _submit(self, pod: Json, plan: PodPlan) -> float | None:
        self._state.submitting()
        try:
            attempt = await self._services.submitter.submit(self._ref, plan)
        except PermanentError as error:
            await self._reject(pod, error.reason or "SlurmRefused", str(error))
            return None
        except TransientError as error:
            reason = f"Slurm{error.reason}" if error.reason else "SlurmUnavailable"
            waiting = Waiting(reason=reason, message=str(error))
            await self._reporter.report_refusal(pod, waiting)
            raise
        log.info("pod submitted pod=%s uid=%s job=%s", self._ref, self._ref.uid, attempt.job_id)
        self._state.planned(attempt, plan)
        self._reporter.submitted(pod, attempt, plan)
        return 0

    async def _reject(self, pod: Json, reason: str, message: str) -> None:
        log.info("pod rejected pod=%s reason=%s", self._ref, reason)
        await self._reporter.reject(pod, reason, message)
