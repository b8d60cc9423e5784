"""One start of a container: from its runtime to the last line of its log.

A state machine driven by the supervisor's loop; nothing here blocks. The runtime is started at
once, beside the dial to the kubelet; the Pod's command enters it when the bundle is there. Whether
there is another start after this one is not decided here (hpk.supervisor.container.container).
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable, Optional, Protocol, Union

from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError, PermanentError
from hpk.model.frames import AttachOpen, ExecOpen
from hpk.model.handlers import ProbeKind, ProbePlan
from hpk.model.plan import ContainerPlan
from hpk.model.record import ContainerState
from hpk.supervisor.base import termination
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop, Step
from hpk.supervisor.base.streams import Session, StreamTable
from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.draining import Draining
from hpk.supervisor.container.end_state import (
    Ending,
    LeftBehind,
    end_state,
    leaves_something,
    left_behind,
)
from hpk.supervisor.container.holding import Holding
from hpk.supervisor.container.program import Program
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.inside import environment
from hpk.supervisor.inside.selinux import check_selinux
from hpk.supervisor.inside.sub_path import CONFIG_ERROR, VolumeError
from hpk.supervisor.probes.hooks import Hook
from hpk.supervisor.probes.prober import Prober
from hpk.supervisor.process import pod_messages
from hpk.supervisor.process.placing import PLACES_STATUS

_VOLUMES_AGAIN_S = 5.0
_LEFT_BEHIND_S = 10.0
LOST = "the pod's init process was killed"


class Owner(Protocol):
    """The container that is started."""

    def waits(self, reason: str, message: str) -> None:
        """Something must be there first."""

    def runs(self, started_at_s: float) -> None:
        """The program runs, and its postStart hook has ended."""

    def has_ended(self, state: ContainerState, ran_s: float) -> None:
        """All is over, and the log is on the disk."""

    def has_failed(self, kind: ProbeKind, plan: ProbePlan) -> None:
        """A probe says that the container must be started again."""


class ContainerStart:
    """See the module's docstring. Times are monotonic where they end in ``_mono_s``.

    :param number: how often the container was started before.
    """

    def __init__(
        self, plan: ContainerPlan, pod: PodContext, loop: Loop, number: int, owner: Owner
    ) -> None:
        self.plan = plan
        self.number = number
        self.step = Step.PREPARING
        self.container_id = os.urandom(32).hex()
        self.log_path = pod.layout.log_path(plan.name, number)
        self.writer = LogWriter(os.path.join(pod.layout.root, self.log_path), loop.log_grew)
        self._pod = pod
        self._loop = loop
        self._owner = owner
        self._bundle: Optional[Bundle] = None
        self._holding = Holding(pod, loop, self._on_event)
        self._program = Program(plan, pod, loop, number)
        self._oom_before = 0
        self._again_mono_s: Optional[float] = None
        self._started_at_s: Optional[float] = None
        self._finished_at_s: Optional[float] = None
        self._status: Optional[int] = None
        self._start_error = ""
        self._post_start: Optional[Hook] = None
        self._draining: Optional[Draining] = None
        self._is_stopping = False
        self.prober = Prober(
            plan,
            loop,
            self._program.exec_message,
            first_tick_mono_s=pod.began_mono_s,
            on_changed=loop.changed,
            on_failed=owner.has_failed,
        )

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        times = [self._again_mono_s, self.prober.wake_mono_s]
        for part in (self._program, self._draining, self._post_start):
            times.append(part.wake_mono_s if part else None)
        return min((item for item in times if item is not None), default=None)

    @property
    def has_entered(self) -> bool:
        """Whether podinit was told to start the program."""
        return self._program.has_entered

    # Starting.

    def begin(self, bundle: Optional[Bundle]) -> None:
        """Start the runtime; the bundle may still be on its way."""
        self._bundle = bundle
        self._try_open()

    def give_bundle(self, bundle: Bundle) -> None:
        """The bundle is there, its volumes are on the disk."""
        self._bundle = bundle
        if self.step is Step.PREPARING:
            self._try_open()

    def _try_open(self) -> None:
        try:
            check_selinux(self.plan)
        except VolumeError as error:
            self._waits(error)
            return
        if self.plan.mpi is None and not self._holding.id:
            if self._bundle is None and self._pod.volumes.waits_for_bundle(self.plan):
                return
            try:
                if self._lacks_paths():
                    return
                self._holding.open(environment.with_sub_paths(self.plan, self._bundle))
            except VolumeError as error:
                self._waits(error)
                return
            except (OSError, ParseError, PermanentError) as error:
                self._fail(f"cannot prepare the container: {error}")
                return
        self._try_run()

    def _waits(self, error: VolumeError) -> None:
        self._owner.waits(error.reason, str(error))
        self._again_mono_s = time.monotonic() + _VOLUMES_AGAIN_S

    def _lacks_paths(self) -> bool:
        """Whether a mount's path is made of what is not there yet; another bundle will tell."""
        if self._bundle is None or not any(mount.sub_path_expr for mount in self.plan.mounts):
            return False
        late = environment.late_part(self.plan, self._bundle)
        if late is None or not late.error:
            return False
        self._owner.waits(late.reason, late.error)
        return True

    def _try_run(self) -> None:
        if self.step is not Step.PREPARING or self._bundle is None or self.has_entered:
            return
        if self.plan.mpi is None and not self._holding.is_open:
            return
        try:
            late = environment.late_part(self.plan, self._bundle)
        except PermanentError as error:
            self._fail(str(error))
            return
        if late is not None and late.error:
            self._owner.waits(late.reason, late.error)
            return
        self._oom_before = self._pod.oom.read()
        self._program.start(
            self._bundle, self._holding.id, self.writer, self._on_event, self._look_at_drain
        )

    # What podinit reports.

    def _on_event(self, event: Any) -> None:
        if isinstance(event, pod_messages.Opened):
            self._holding.is_open = True
            self._try_run()
        elif isinstance(event, pod_messages.Started):
            self._on_started()
        elif isinstance(event, pod_messages.NotStarted):
            self._fail(event.message)
        elif isinstance(event, pod_messages.Exited):
            self._on_exited(event.status)
        elif isinstance(event, pod_messages.Closed):
            self._on_closed(event.status)

    def _on_started(self) -> None:
        self._started_at_s = time.time()
        self.step = Step.RUNNING
        self._program.started()
        log("container started", container=self.plan.name, restart=self.number)
        handler = self.plan.lifecycle.post_start
        if handler is not None and not self._is_stopping:
            self._post_start = Hook(
                "postStart",
                self.plan.name,
                handler,
                self._loop,
                self._program.exec_message,
                self._on_post_start,
            )
            return
        self._run_on()

    def _on_post_start(self, went_well: bool) -> None:
        self._post_start = None
        if went_well:
            self._run_on()
            return
        name = self.plan.name
        self._loop.note(name, "FailedPostStartHook", "PostStartHook failed", is_warning=True)
        self._loop.note(name, "Killing", "FailedPostStartHook", is_warning=False)
        self.end_within(self._pod.grace_period_s)

    def _run_on(self) -> None:
        self._owner.runs(self._started_at_s or time.time())
        if not self._is_stopping:
            self.prober.begin()
            self._loop.changed()

    def _on_exited(self, status: int) -> None:
        self._status = status
        self._finished_at_s = time.time()
        code, _ = termination.exit_code_of(status)
        log("container exited", container=self.plan.name, code=code)
        self._drain()

    def _on_closed(self, status: int) -> None:
        self._holding.closed()
        if self.step is Step.PREPARING and self._status is None:
            code, _ = termination.exit_code_of(status)
            errors = self._holding.errors()
            if code == PLACES_STATUS and not self._is_stopping:
                self._open_later(errors)
                return
            why = errors or f"{self._pod.runtime.name} ended with {code}"
            if self._is_stopping and not errors:
                why = "stopped"
            self._fail(why[-2048:])

    def _open_later(self, why: str) -> None:
        """A volume has changed since it was looked at: look again, in a directory of its own."""
        self._holding.renew()
        self._owner.waits(CONFIG_ERROR, why)
        self._again_mono_s = time.monotonic() + _VOLUMES_AGAIN_S

    def clear_up(self) -> None:
        """Remove what it left on this node's disk; that may take its time."""
        self._holding.clear_up()

    def _fail(self, why: str) -> None:
        if self.step in (Step.DRAINING, Step.DONE):
            return
        self._start_error = why
        self._finished_at_s = time.time()
        log("container cannot start", container=self.plan.name, why=why.replace("\n", " ")[:500])
        self._drain()

    # Ending.

    def _drain(self) -> None:
        self.step = Step.DRAINING
        self._again_mono_s = None
        self.prober.end()
        if self._post_start is not None:
            self._post_start.cancel()
            self._post_start = None
        self._program.ended()
        self._holding.close()
        self._draining = Draining(self._program.output, self.writer, self._finish)
        self._draining.begin()

    def _look_at_drain(self) -> None:
        if self._draining is not None:
            self._draining.look()

    def _finish(self) -> None:
        self._program.drained()
        had_oom = self._pod.oom.read() > self._oom_before
        if not leaves_something(self.plan):
            self._conclude(LeftBehind(), had_oom=had_oom)
            return
        self._loop.ask_files(
            lambda: left_behind(self.plan, self.number, self._pod, self.writer),
            lambda left: self._conclude(left, had_oom=had_oom),
            instead=LeftBehind(),
            timeout_s=_LEFT_BEHIND_S,
        )

    def _conclude(self, left: LeftBehind, *, had_oom: bool) -> None:
        self.step = Step.DONE
        ending = Ending(
            plan=self.plan,
            number=self.number,
            directory=self._holding.directory,
            status=self._status,
            first_failure=self._program.first_failure,
            start_error=self._start_error or (left.start_error if self._status else ""),
            started_at_s=self._started_at_s,
            finished_at_s=self._finished_at_s or time.time(),
            had_oom=had_oom,
        )
        ran_s = ending.finished_at_s - (self._started_at_s or ending.finished_at_s)
        self._owner.has_ended(end_state(ending, self._pod, left), ran_s)

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        self._program.tick()
        self.prober.tick()
        if self._post_start is not None:
            self._post_start.tick()
        if self._draining is not None:
            self._draining.look()
        elif self._again_mono_s is not None and time.monotonic() >= self._again_mono_s:
            self._again_mono_s = None
            self._try_open()

    def log_written(self) -> None:
        """The thread of the log has done something."""
        self._look_at_drain()

    # What others do in it.

    def open_session(
        self,
        frame: Union[ExecOpen, AttachOpen],
        table: StreamTable,
        on_end: Callable[[], None],
    ) -> Optional[Session]:
        """Run somebody's program beside the container's, or attach him to that; None while it does
        not run.

        :param on_end: called once, when the last word is said.
        """
        if self.step is not Step.RUNNING:
            return None
        return self._program.open_session(frame, table, on_end)

    # Stopping.

    def pod_stops(self, *, with_hook: bool) -> None:
        """The pod is to end: its hooks run, `stop` follows."""
        self.prober.pod_stops()
        if with_hook and self.step is Step.RUNNING and self._program.stopping is not None:
            self._program.stopping.prepare()

    def stop(self) -> None:
        """Ask the program to end."""
        self._is_stopping = True
        self.prober.pod_stops()
        if self._post_start is not None:
            self._post_start.cancel()
            self._post_start = None
        if self.step is Step.RUNNING and self._program.stopping is not None:
            self._program.stopping.terminate()

    def end_within(self, grace_s: int) -> None:
        """Bring this start to its end, and nothing more."""
        if self.step is Step.RUNNING and self._program.stopping is not None:
            self._program.stopping.end_within(grace_s)

    def signal_as_process_1(self, number: int, not_before_s: int) -> None:
        """Signal the program from within, if it runs; see hpk.supervisor.container.stopping."""
        if self.step is Step.RUNNING and self._program.stopping is not None:
            self._program.stopping.signal_as_process_1(number, not_before_s)

    def kill(self, *, at_once: bool) -> None:
        """The grace period is over."""
        if self.step is Step.RUNNING and self._program.stopping is not None:
            self._program.stopping.kill(at_once=at_once)

    def abandon(self) -> None:
        """End it before podinit was told to start the program."""
        self.step = Step.DONE
        self._again_mono_s = None
        self._holding.close()
        self.writer.close()

    def lost(self) -> None:
        """podinit is gone, and all its processes."""
        self._holding.closed()
        self._program.lost(LOST)
        if self.step is Step.RUNNING:
            self._on_exited(signal.SIGKILL)
        elif self.step is Step.PREPARING:
            self._fail(LOST)
        elif self.step is Step.DRAINING:
            self._look_at_drain()
