"""The probes of one start of a container: asks when it is time, and says what follows.

Source: kubernetes pkg/kubelet/prober (worker.go, prober.go, prober_manager.go).
"""

from __future__ import annotations

import time
from typing import Callable, Optional

from hpk.model.handlers import ProbeKind, ProbePlan
from hpk.model.plan import ContainerPlan
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.exec_check import RunMessage
from hpk.supervisor.probes.handling import Action, Handling
from hpk.supervisor.probes.probe_state import ProbeState, is_due, next_tick

UNHEALTHY = "Unhealthy"
_LATE_S = 1.0
"""How much longer than its own time limit a check is waited for."""


class _Worker:
    """One probe: what holds, and the check that is under way."""

    def __init__(self, kind: ProbeKind, plan: ProbePlan) -> None:
        self.state = ProbeState(kind, plan)
        self.next_mono_s = float("inf")
        self.handling: Optional[Handling] = None
        self.deadline_mono_s = float("inf")

    @property
    def is_busy(self) -> bool:
        return self.handling is not None and not self.handling.is_over


class Prober:
    """See the module's docstring.

    :param first_tick_mono_s: when the pod began; the probes' clocks run from then.
    :param on_changed: `started` or `ready` is another one.
    :param on_failed: a liveness or startup probe has failed for good.
    """

    def __init__(
        self,
        plan: ContainerPlan,
        loop: Loop,
        run_message: RunMessage,
        *,
        first_tick_mono_s: float,
        on_changed: Callable[[], None],
        on_failed: Callable[[ProbeKind, ProbePlan], None],
    ) -> None:
        self._name = plan.name
        self._loop = loop
        self._run_message = run_message
        self._first_tick_mono_s = first_tick_mono_s
        self._on_changed = on_changed
        self._on_failed = on_failed
        self._running_mono_s: Optional[float] = None
        kinds = (
            (ProbeKind.STARTUP, plan.probes.startup),
            (ProbeKind.LIVENESS, plan.probes.liveness),
            (ProbeKind.READINESS, plan.probes.readiness),
        )
        self._workers = {k: _Worker(k, probe) for k, probe in kinds if probe is not None}

    @property
    def started(self) -> bool:
        """Whether the container runs and its startup probe, if any, has succeeded."""
        if self._running_mono_s is None:
            return False
        worker = self._workers.get(ProbeKind.STARTUP)
        return worker is None or worker.state.result is True

    @property
    def ready(self) -> bool:
        """Whether it has started and its readiness probe, if any, says yes."""
        worker = self._workers.get(ProbeKind.READINESS)
        return self.started and (worker is None or worker.state.result is True)

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        times = [
            worker.deadline_mono_s if worker.is_busy else worker.next_mono_s
            for worker in self._workers.values()
        ]
        return min(times, default=None)

    def begin(self) -> None:
        """The container runs."""
        now = time.monotonic()
        self._running_mono_s = now
        for worker in self._workers.values():
            worker.next_mono_s = next_tick(self._first_tick_mono_s, worker.state.plan.period_s, now)
        self._hurry_readiness()

    def pod_stops(self) -> None:
        """The pod is to end: it must not be restarted now; whether it is ready is still asked."""
        for kind in (ProbeKind.LIVENESS, ProbeKind.STARTUP):
            self._drop(self._workers.get(kind))

    def end(self) -> None:
        """The container has ended."""
        self._running_mono_s = None
        for worker in self._workers.values():
            self._drop(worker)

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.is_busy:
                if now >= worker.deadline_mono_s:
                    self._cut(worker)
            elif now >= worker.next_mono_s:
                self._ask(worker, now)

    def _ask(self, worker: _Worker, now: float) -> None:
        plan = worker.state.plan
        worker.next_mono_s = next_tick(self._first_tick_mono_s, plan.period_s, now)
        if self._running_mono_s is None or not is_due(
            worker.state, ran_s=now - self._running_mono_s, started=self.started
        ):
            return
        late_s = 0.0 if plan.handler.exec else _LATE_S
        worker.deadline_mono_s = now + plan.timeout_s + late_s
        action = Action(plan.handler, plan.timeout_s, self._run_message)
        worker.handling = Handling(self._loop, action, lambda result: self._take(worker, result))

    def _cut(self, worker: _Worker) -> None:
        """It takes too long."""
        if worker.handling is not None:
            worker.handling.cancel()
        plan = worker.state.plan
        what = " ".join(plan.handler.exec) or "check"
        text = f'command timed out: "{what}" timed out after {plan.timeout_s}s'
        self._take(worker, CheckResult(Outcome.FAILURE, text))

    def _take(self, worker: _Worker, result: CheckResult) -> None:
        state = worker.state
        worker.handling = None
        kind = state.kind.value
        if result.outcome is Outcome.ERROR:
            text = f"{kind} probe errored and resulted in unknown state: {result.text}"
            self._note(UNHEALTHY, text)
            return
        if result.outcome is Outcome.WARNING:
            self._note("ProbeWarning", f"{kind} probe warning: {result.text}")
        elif result.outcome is Outcome.FAILURE:
            self._note(UNHEALTHY, f"{kind} probe failed: {result.text}")
        before = (self.started, self.ready)
        is_failure = result.outcome is Outcome.FAILURE
        reached = state.take(not is_failure)
        if (self.started, self.ready) != before:
            log("probe", container=self._name, started=self.started, ready=self.ready)
            self._on_changed()
        if reached and is_failure and state.kind is not ProbeKind.READINESS:
            self._on_failed(state.kind, state.plan)
        elif reached and state.kind is ProbeKind.STARTUP:
            self._hurry_readiness()

    def _hurry_readiness(self) -> None:
        """As upstream asks at once whether a container that has just started is ready."""
        worker = self._workers.get(ProbeKind.READINESS)
        if worker is not None and self.started:
            worker.next_mono_s = time.monotonic()

    def _drop(self, worker: Optional[_Worker]) -> None:
        if worker is not None:
            if worker.handling is not None:
                worker.handling.cancel()
            worker.handling = None
            worker.next_mono_s = float("inf")

    def _note(self, reason: str, text: str) -> None:
        self._loop.note(self._name, reason, text, is_warning=True)
