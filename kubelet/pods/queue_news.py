"""What is new about a queued job that its Pod's Events should tell: Slurm's reason, and when it is
expected to start, where that has changed by much. Slurm reckons anew every half minute."""

from __future__ import annotations

from hpk.model.job import JobObservation
from kubelet.api.apiserver import Json
from kubelet.status.container_statuses import Waiting

_LEAST_S = 600.0
_PART = 0.25


class QueueNews:
    """Of one pod."""

    def __init__(self) -> None:
        self._reason = ""
        self._start_s: float | None = None

    def is_new_reason(self, pod: Json, job: JobObservation | None, waiting: Waiting) -> bool:
        """Whether the job waits for another reason than was told; from then on it is told."""
        is_new = waiting.reason != self._reason
        self._reason = waiting.reason
        if is_new:
            self._start_s = _start_s(job)
        # What a kubelet before this one wrote, it has told.
        return is_new and not _shows(pod, waiting)

    def is_new_start(self, job: JobObservation | None, now_s: float) -> bool:
        """Whether it is expected to start at another time: a quarter of the wait earlier or later,
        and ten minutes at least; from then on it is told."""
        start_s, told_s = _start_s(job), self._start_s
        if start_s is None:
            return False
        if told_s is not None:
            least_s = max(_LEAST_S, _PART * (told_s - now_s))
            if abs(start_s - told_s) < least_s:
                return False
        self._start_s = start_s
        return True


def _start_s(job: JobObservation | None) -> float | None:
    return job.start_time_s if job is not None and job.state.is_queued else None


def _shows(pod: Json, waiting: Waiting) -> bool:
    """Whether the Pod says so already."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if (status["state"].get("waiting") or {}).get("reason") == waiting.reason:
            return True
    return False
