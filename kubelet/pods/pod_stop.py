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

_SEND_WITHIN_S = 5.0
"""How long a supervisor that does not read may hold back what else ends its job."""


class PodStop:
    """Stops one pod."""

    def __init__(self, ref: PodRef, services: WorkerServices, reporter: PodReporter) -> None:
        self._ref = ref
        self._services = services
        self._reporter = reporter
        self._told = False
        self._stop_sent: tuple[int, int] | None = None
        self.cancelled_at_s: float | None = None
        """When the job was last cancelled, monotonic seconds."""

    async def cancel(self, attempt: Attempt) -> None:
        """scancel."""
        if attempt.job_id is None:
            return
        self.cancelled_at_s = time.monotonic()
        log.info("job cancelled pod=%s job=%s", self._ref, attempt.job_id)
        for error in (await self._services.slurm.cancel([attempt.job_id])).values():
            raise error
        self._services.pleg.hurry()

    async def stop(self, pod: Json, attempt: Attempt, grace_period_s: int) -> bool:
        """Ask the supervisor, once for each of its sessions; its stop file asks where none is.

        :returns: False where it could not be asked; ask again soon.
        """
        if not self._told:
            self._told = True
            self._reporter.stopping(pod)
        session = self._services.session(attempt)
        key = (grace_period_s, session.number if session is not None else 0)
        if self._stop_sent == key:
            return True
        frame = Stop(grace_period_s=grace_period_s)
        try:
            if session is not None:
                async with asyncio.timeout(_SEND_WITHIN_S):
                    await session.send(frame)
            else:
                layout = self._services.paths.attempt(self._ref.uid, attempt.nonce)
                path = Path(layout.stop_request)
                await self._services.files.do(write_atomically, path, codec.dumps(frame))
        except OSError as error:
            # A session that broke is told of: then the file is written, or the next session asked.
            log.warning("stop not sent pod=%s error=%s", self._ref, error)
            return False
        self._stop_sent = key
        return True
