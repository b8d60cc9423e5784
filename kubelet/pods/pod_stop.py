"""Ends a pod's job: through its supervisor, which stops the containers gracefully, or by scancel.

When to do which is kubelet.pods.actions' to decide.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from hpk.durable import write_atomically
from hpk.journal import Attempt
from hpk.model import codec
from hpk.model.frames import Stop
from hpk.model.ids import PodRef
from kubelet.api.apiserver import Json
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.worker_services import WorkerServices

log = logging.getLogger(__name__)


class PodStop:
    """Stops one pod."""

    def __init__(self, ref: PodRef, services: WorkerServices, reporter: PodReporter) -> None:
        self._ref = ref
        self._services = services
        self._reporter = reporter
        self._stop_sent: tuple[int, int] | None = None
        self.cancelled_at_s: float | None = None
        """When the job was last cancelled, monotonic seconds."""

    async def cancel(self, attempt: Attempt) -> None:
        """scancel."""
        if attempt.job_id is None:
            return
        self.cancelled_at_s = time.monotonic()
        log.info("job cancelled pod=%s job=%s", self._ref, attempt.job_id)
        await self._services.slurm.cancel(attempt.job_id)
        self._services.pleg.hurry()

    async def stop(self, pod: Json, attempt: Attempt, grace_period_s: int) -> None:
        """Ask the supervisor, once for each of its sessions; its stop file asks where none is."""
        session = self._services.session(attempt)
        key = (grace_period_s, id(session))
        if self._stop_sent == key:
            return
        if self._stop_sent is None:
            self._reporter.stopping(pod)
        frame = Stop(grace_period_s=grace_period_s)
        layout = self._services.paths.attempt(self._ref.uid, attempt.nonce)
        await asyncio.to_thread(write_atomically, Path(layout.stop_request), codec.dumps(frame))
        if session is not None:
            try:
                await session.send(frame)
            except OSError as error:
                log.info("stop not sent, the stop file stands pod=%s error=%s", self._ref, error)
        self._stop_sent = key
