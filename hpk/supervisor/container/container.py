"""One container: its starts, one after the other, and whether there is another.

A state machine driven by the supervisor's loop; nothing here blocks. What happens within a start is
hpk.supervisor.container.start's.
"""

from __future__ import annotations

import time
from typing import Callable, Optional, Union

from hpk.model.bundle import Bundle
from hpk.model.frames import AttachOpen, ExecOpen
from hpk.model.handlers import ProbeKind, ProbePlan
from hpk.model.plan import ContainerPlan, RestartPolicy
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState
from hpk.supervisor.base import termination
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop, Step
from hpk.supervisor.base.streams import Session, StreamTable
from hpk.supervisor.container import restart
from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.start import LOST, ContainerStart
from hpk.supervisor.container.start_orders import PodContext

_CREATING = "ContainerCreating"
_INITIALIZING = "PodInitializing"
_REMOVE_S = 60.0


class Container:
    """See the module's docstring.

    :param policy: when it starts again.
    :param is_init: it is an init container or a sidecar.
    """

    def __init__(
        self,
        plan: ContainerPlan,
        policy: RestartPolicy,
        pod: PodContext,
        loop: Loop,
        *,
        is_init: bool = False,
    ) -> None:
        self.plan = plan
        self.exit_code = 0
        self._policy = policy
        self._is_init = is_init
        self._pod = pod
        self._loop = loop
        self._step = Step.WAITING
        self._start: Optional[ContainerStart] = None
        self._last_start: Optional[ContainerStart] = None
        self._state = self._waiting()
        self._last_state: Optional[ContainerState] = None
        self._last_container_id = ""
        self._restart_count = 0
        self._backoff_s: Optional[float] = None
        self._again_mono_s: Optional[float] = None
        self._has_started = False
        self._must_restart = False
        self._is_stopping = False
        self._kill_at_once: Optional[bool] = None
        self._bundle: Optional[Bundle] = None
        self._logs: list[tuple[str, LogWriter]] = []

    def _waiting(self) -> ContainerState:
        reason = _INITIALIZING if self._pod.initializes else _CREATING
        return ContainerState(phase=ContainerPhase.WAITING, reason=reason)

    # What the loop asks.

    @property
    def step(self) -> Step:
        """Where it is."""
        if self._start is not None and self._start.step is not Step.DONE:
            return self._start.step
        return self._step

    @property
    def record(self) -> ContainerRecord:
        """The container as the record has it."""
        start, runs = self._start, self._state.phase is ContainerPhase.RUNNING
        return ContainerRecord(
            name=self.plan.name,
            state=self._state,
            last_state=self._last_state,
            restart_count=self._restart_count,
            container_id=start.container_id if start else "",
            log_path=self._pod.layout.log_path(self.plan.name, self._restart_count),
            last_container_id=self._last_container_id,
            started=runs and start is not None and start.prober.started,
            ready=runs and start is not None and start.prober.ready,
        )

    @property
    def has_started(self) -> bool:
        """Whether it has run, and its startup probe, if any, has succeeded."""
        return self._has_started or (self._start is not None and self._start.prober.started)

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        times = [self._again_mono_s, self._start.wake_mono_s if self._start else None]
        return min((item for item in times if item is not None), default=None)

    @property
    def is_done(self) -> bool:
        """Whether it has ended and does not start again."""
        return self.step is Step.DONE

    def writer(self, log_path: str) -> Optional[LogWriter]:
        """The log of this path, None if it is none of this container's."""
        return next((writer for path, writer in self._logs if path == log_path), None)

    # Starting.

    def begin(self) -> None:
        """Start it; the bundle may still be on its way."""
        self._step = Step.PREPARING
        # As upstream has it, one dead container is kept.
        before_last, self._last_start = self._last_start, self._start
        if before_last is not None:
            before_last.clear_up()
        self._start = ContainerStart(self.plan, self._pod, self._loop, self._restart_count, self)
        self._forget_old_logs()
        self._logs.append((self._start.log_path, self._start.writer))
        self._start.begin(self._bundle)

    def _forget_old_logs(self) -> None:
        """Keep that of the last start alone, for `kubectl logs --previous`, as upstream does."""
        old, self._logs = self._logs[:-1], self._logs[-1:]
        for _, writer in old:
            self._loop.ask_files(writer.remove, lambda _: None, instead=None, timeout_s=_REMOVE_S)

    def give_bundle(self, bundle: Bundle) -> None:
        """The bundle is there, its volumes are on the disk."""
        self._bundle = bundle
        if self._start is not None:
            self._start.give_bundle(bundle)

    # What its start says (hpk.supervisor.container.start.Owner).

    def waits(self, reason: str, message: str) -> None:
        """See Owner.waits."""
        state = ContainerState(phase=ContainerPhase.WAITING, reason=reason, message=message)
        if state != self._state:
            log("container waits", container=self.plan.name, reason=reason)
            self._state = state
            self._loop.changed()

    def runs(self, started_at_s: float) -> None:
        """See Owner.runs."""
        self._has_started = self._has_started or self.plan.probes.startup is None
        self._state = ContainerState(phase=ContainerPhase.RUNNING, started_at_s=started_at_s)
        self._loop.changed()
        if self._is_stopping and self._start is not None:
            self._start.stop()
            if self._kill_at_once is not None:
                self._start.kill(at_once=self._kill_at_once)

    def has_failed(self, kind: ProbeKind, plan: ProbePlan) -> None:
        """See Owner.has_failed."""
        what = "Init container" if self._is_init else "Container"
        message = f"{what} {self.plan.name} failed {kind.value.lower()} probe"
        self._must_restart = self._policy is not RestartPolicy.NEVER
        if self._must_restart and not self._is_init:
            message += ", will be restarted"
        self._loop.note(self.plan.name, "Killing", message, is_warning=False)
        grace_s = self._pod.grace_period_s if plan.grace_period_s is None else plan.grace_period_s
        if self._start is not None:
            self._start.end_within(grace_s)

    def has_ended(self, state: ContainerState, ran_s: float) -> None:
        """See Owner.has_ended."""
        self.exit_code = state.exit_code or 0
        again = self._must_restart or restart.should_restart(self._policy, self.exit_code)
        self._must_restart = False
        if again and not self._is_stopping:
            self._last_state = state
            self._last_container_id = self._start.container_id if self._start else ""
            self._backoff_s = restart.next_backoff_s(self._backoff_s, ran_s)
            self._back_off(self._backoff_s)
        else:
            self._step = Step.DONE
            self._state = state
            self._loop.changed()

    def _back_off(self, wait_s: float) -> None:
        if not wait_s:
            self._begin_again()
            return
        self._state = ContainerState(
            phase=ContainerPhase.WAITING,
            reason="CrashLoopBackOff",
            message=f"back-off {wait_s:.0f}s restarting failed container={self.plan.name}",
        )
        self._step = Step.BACKOFF
        self._again_mono_s = time.monotonic() + wait_s
        self._loop.changed()

    def _begin_again(self) -> None:
        self._again_mono_s = None
        self._restart_count += 1
        self._state = self._waiting()
        self.begin()
        self._loop.changed()

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        if self._start is not None:
            self._start.tick()
            self._has_started = self._has_started or self._start.prober.started
        if self._again_mono_s is not None and time.monotonic() >= self._again_mono_s:
            self._begin_again()

    def log_written(self) -> None:
        """The thread of the log has done something."""
        if self._start is not None:
            self._start.log_written()

    def open_session(
        self,
        frame: Union[ExecOpen, AttachOpen],
        table: StreamTable,
        on_end: Callable[[], None],
    ) -> Optional[Session]:
        """See hpk.supervisor.container.start.ContainerStart.open_session."""
        return None if self._start is None else self._start.open_session(frame, table, on_end)

    # Stopping.

    def pod_stops(self, *, with_hook: bool) -> None:
        """The pod is to end, and this container when its turn has come.

        :param with_hook: there is time for its preStop hook.
        """
        if self._start is not None:
            self._start.pod_stops(with_hook=with_hook)

    def stop(self) -> None:
        """Ask the container's process to end, and do not start it again."""
        if self._is_stopping:
            return
        self._is_stopping = True
        step = self.step
        if step is Step.WAITING:
            # As upstream leaves a container whose pod ended before its turn: waiting.
            self._step = Step.DONE
            self._loop.changed()
        elif step is Step.BACKOFF:
            self._state = self._last_state or termination.never_ran(time.time())
            self._last_state, self._last_container_id = None, ""
            self._end_before_run()
        elif self._start is not None and step is Step.PREPARING and not self._start.has_entered:
            self._state = termination.never_ran(time.time())
            self._end_before_run()
        elif self._start is not None:
            self._start.stop()

    def _end_before_run(self) -> None:
        if self._start is not None and self._start.step is not Step.DONE:
            self._start.abandon()
        self._step = Step.DONE
        self._again_mono_s = None
        self.exit_code = self._state.exit_code or 0
        self._loop.changed()

    def lost(self) -> None:
        """podinit is gone, and all its processes."""
        step = self.step
        if step is Step.BACKOFF:
            self.stop()
        self._is_stopping = True  # before anything decides whether to start it again
        if step is Step.WAITING:
            # Not as stop leaves it: what comes after an init container must not take it for ended.
            self._state = termination.not_started(self.plan.name, LOST, time.time())
            self.exit_code = termination.START_ERROR_CODE
            self._step = Step.DONE
            self._loop.changed()
        elif self._start is not None:
            self._start.lost()

    def signal_as_process_1(self, number: int, not_before_s: int) -> None:
        """Signal the program from within, if it runs; when it ends, restartPolicy decides."""
        if self._start is not None:
            self._start.signal_as_process_1(number, not_before_s)

    def kill(self, *, at_once: bool) -> None:
        """The grace period is over; see hpk.supervisor.container.stopping."""
        self._kill_at_once = at_once
        if self._start is not None:
            self._start.kill(at_once=at_once)
