"""What nobody tells the supervisor and it has to look for: a stop file, whether there is still a
control plane, the pod's deadline.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import Optional

from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.model.record import StopCause
from hpk.supervisor.pod.stop_request import read_stop_request


@dataclass(frozen=True)
class Reason:
    """Why the pod is to stop, and how long it has; message "" where the cause says it all."""

    cause: StopCause
    grace_period_s: int
    message: str = ""


class ReasonsToStop:
    """Looks when it is asked to.

    :param began_mono_s: when the pod began.
    """

    def __init__(self, spec: JobSpec, layout: AttemptLayout, began_mono_s: float) -> None:
        self._plan = spec.plan
        self._settings = spec.settings
        self._layout = layout
        self._began_mono_s = began_mono_s
        self._alive_mono_s = began_mono_s
        self._heartbeat: Optional[tuple[int, int]] = None

    def heard(self) -> None:
        """The control plane has given a sign of life."""
        self._alive_mono_s = time.monotonic()

    def look(self) -> list[Reason]:
        """Every reason there is to stop the pod, the first one first."""
        now = time.monotonic()
        found = []
        stop = read_stop_request(self._layout.stop_request)
        if stop is not None:
            found.append(Reason(StopCause.REQUESTED, stop.grace_period_s))
        self._look_for_heartbeat()
        timeout_s, grace_s = self._settings.orphan_timeout_s, self._plan.grace_period_s
        if now - self._alive_mono_s > timeout_s:
            why = f"no control plane for {timeout_s} s: the pod gave its node back"
            found.append(Reason(StopCause.ORPHANED, grace_s, why))
        deadline_s = self._plan.active_deadline_s
        if deadline_s is not None and now - self._began_mono_s > deadline_s:
            found.append(Reason(StopCause.DEADLINE, grace_s))
        return found

    def _look_for_heartbeat(self) -> None:
        with contextlib.suppress(OSError):
            info = os.stat(self._settings.heartbeat_path)
            beat = (info.st_ino, info.st_mtime_ns)
            if self._heartbeat is not None and beat != self._heartbeat:
                self.heard()
            self._heartbeat = beat
