"""What a probe's results amount to, and when it is asked again. Pure.

Source: kubernetes pkg/kubelet/prober/worker.go (doProbe).
"""

from __future__ import annotations

import math
from typing import Optional

from hpk.model.handlers import ProbeKind, ProbePlan

_INITIAL = {ProbeKind.STARTUP: None, ProbeKind.LIVENESS: True, ProbeKind.READINESS: False}


class ProbeState:
    """One probe of one start of a container.

    :ivar result: what holds: success, failure, or None while a startup probe has not decided.
    :ivar is_settled: it has said its last word on this start.
    """

    def __init__(self, kind: ProbeKind, plan: ProbePlan) -> None:
        self.kind = kind
        self.plan = plan
        self.result: Optional[bool] = _INITIAL[kind]
        self.is_settled = False
        self._last: Optional[bool] = None
        self._in_a_row = 0

    def take(self, success: bool) -> bool:
        """One more result; whether it brings what holds to the threshold."""
        self._in_a_row = self._in_a_row + 1 if success == self._last else 1
        self._last = success
        plan = self.plan
        if self._in_a_row < (plan.success_threshold if success else plan.failure_threshold):
            return False
        self.result = success
        if self.kind is ProbeKind.STARTUP or (self.kind is ProbeKind.LIVENESS and not success):
            self.is_settled = True
        return True


def is_due(state: ProbeState, *, ran_s: float, started: bool) -> bool:
    """Whether the probe is to be asked at this tick.

    :param ran_s: how long the container has run.
    :param started: whether its startup probe, where it has one, has succeeded.
    """
    if state.is_settled or int(ran_s) < state.plan.initial_delay_s:
        return False
    return started is not (state.kind is ProbeKind.STARTUP)


def next_tick(first_s: float, period_s: int, now_s: float) -> float:
    """The first of the times ``first_s + N * period_s`` that is later than now.

    A probe's clock runs on while its container is started again, as upstream's ticker does.
    """
    return first_s + period_s * (math.floor((now_s - first_s) / period_s) + 1)
