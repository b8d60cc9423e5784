"""What nobody tells the supervisor and it has to look for: a stop file, whether there is still a
control plane, the pod's deadline.
"""

from __future__ import annotations

import os
import time
from typing import Optional

from hpk.model import frames
from hpk.model.frozen import dataclass
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.model.record import StopCause
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.pod.stop_request import Found, look

_FIRST_LOOK_S = 2.0
_LOOK_MIN_S = 10.0
_LOOK_MAX_S = 30.0
_LOOK_S = 60.0
_IDLE_S = 3600
"""A pod that no control plane has given its bundle does no work that would be lost."""


@dataclass(frozen=True)
class Reason:
    """Why the pod is to stop, and how long it has; message "" where the cause says it all."""

    cause: StopCause
    grace_period_s: int
    message: str = ""


class ReasonsToStop:
    """Judges what it knows, and has the files looked at.

    While the kubelet speaks to us nothing has to be looked for; once after each time that it begins
    to, for a Stop that it left in between.

    :param began_mono_s: when the pod began.
    """

    def __init__(
        self, spec: JobSpec, layout: AttemptLayout, began_mono_s: float, loop: Loop
    ) -> None:
        self._plan = spec.plan
        self._settings = spec.settings.for_pod(spec.plan)
        self._layout = layout
        self._loop = loop
        self._alive_mono_s = began_mono_s
        self._look_mono_s = began_mono_s + _FIRST_LOOK_S
        self._is_looking = False
        self._heartbeat: Optional[tuple[int, int]] = None
        self._stop: Optional[frames.Stop] = None
        self._is_orphan = False
        self._has_begun = False
        self._began_mono_s = began_mono_s
        self._deadline_mono_s: Optional[float] = None
        self.set_deadline(spec.plan.active_deadline_s)

    def welcome(self) -> None:
        """The kubelet has begun to speak to us."""
        self._alive_mono_s = time.monotonic()
        self._look()

    def set_deadline(self, active_deadline_s: Optional[int]) -> None:
        """The Pod's activeDeadlineSeconds, which may be changed while it runs."""
        self._deadline_mono_s = None
        if active_deadline_s is not None:
            self._deadline_mono_s = self._began_mono_s + active_deadline_s

    def begin(self) -> None:
        """The pod has all that its containers need."""
        self._has_begun = True

    @property
    def _orphan_timeout_s(self) -> int:
        timeout_s = self._settings.orphan_timeout_s
        return timeout_s if self._has_begun else min(timeout_s, _IDLE_S)

    @property
    def wake_mono_s(self) -> float:
        """When `tick` wants to be called."""
        if self._deadline_mono_s is None:
            return self._look_mono_s
        return min(self._look_mono_s, self._deadline_mono_s)

    def tick(self, *, is_welcome: bool) -> list[Reason]:
        """Every new reason to stop the pod, the first one first."""
        now = time.monotonic()
        if is_welcome:
            self._alive_mono_s, self._is_orphan = now, False
        if now >= self._look_mono_s:
            self._look_mono_s = now + self._pause_s()
            if not is_welcome:
                self._look()
        grace_s = self._plan.grace_period_s
        found = []
        if self._stop is not None:
            found.append(Reason(StopCause.REQUESTED, self._stop.grace_period_s))
            self._stop = None
        if self._is_orphan:
            timeout_s = self._orphan_timeout_s
            why = f"no control plane for {timeout_s} s: the pod gave its node back"
            found.append(Reason(StopCause.ORPHANED, grace_s, why))
            self._is_orphan = False
        if self._deadline_mono_s is not None and now >= self._deadline_mono_s:
            found.append(Reason(StopCause.DEADLINE, grace_s))
            self._deadline_mono_s = None
        return found

    def _pause_s(self) -> float:
        # At random: thousands of pods may have lost the same control plane.
        pause_s = _LOOK_MIN_S + (_LOOK_MAX_S - _LOOK_MIN_S) * os.urandom(1)[0] / 255
        return min(pause_s, max(1.0, self._orphan_timeout_s / 2))

    def _look(self) -> None:
        if self._is_looking:
            return
        self._is_looking = True
        paths = self._layout.stop_request, self._settings.heartbeat_path
        nothing: Optional[Found] = None
        self._loop.ask_files(
            lambda: look(*paths), self._on_found, instead=nothing, timeout_s=_LOOK_S
        )

    def _on_found(self, found: Optional[Found]) -> None:
        self._is_looking = False
        if found is None:
            # Who cannot look does not know that the control plane is gone.
            return
        self._stop = found.stop
        now = time.monotonic()
        if self._heartbeat is not None and found.heartbeat not in (None, self._heartbeat):
            self._alive_mono_s = now
        self._heartbeat = found.heartbeat or self._heartbeat
        self._is_orphan = now - self._alive_mono_s > self._orphan_timeout_s
