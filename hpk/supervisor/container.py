"""One container: from its runtime's start to the last line of its log, and again if it restarts.

A state machine driven by the supervisor's loop; nothing here blocks. A container's runtime is
started at once, beside the dial to the kubelet; the Pod's command enters it when the bundle is
there.
"""

from __future__ import annotations

import os
import signal
import time
from enum import Enum
from typing import Any, Optional, Protocol

from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError, PermanentError
from hpk.model.plan import ContainerPlan, RestartPolicy
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState
from hpk.supervisor import (
    environment,
    launch,
    mounts,
    pod_messages,
    rank_files,
    restart,
    termination,
)
from hpk.supervisor.crilog import LogWriter
from hpk.supervisor.files import log, read_file
from hpk.supervisor.launch import PodContext, RankFailures
from hpk.supervisor.output import Output, Watcher
from hpk.supervisor.sub_path import VolumeError

_PIPE_TIMEOUT_S = 5.0
_LOG_TIMEOUT_S = 30.0
_SRUN_END_TIMEOUT_S = 10.0
_VOLUMES_AGAIN_S = 5.0
_CREATING = "ContainerCreating"
_INITIALIZING = "PodInitializing"
_LOST = "the pod's init process was killed"


class Step(Enum):
    """Where a container is."""

    WAITING = 0
    """Not its turn yet."""
    PREPARING = 1
    RUNNING = 2
    DRAINING = 3
    BACKOFF = 4
    DONE = 5


class Loop(Watcher, Protocol):
    """What a container asks of the supervisor's loop."""

    def command(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """Send to pod_messages."""

    def changed(self) -> None:
        """The container's record is a new one."""

    def log_grew(self) -> None:
        """A log has more to read; may be called from any thread."""

    def new_id(self) -> int:
        """An id for podinit that nobody had yet."""


class Container:
    """See the module's docstring. Times are monotonic where they end in ``_mono_s``."""

    def __init__(
        self, plan: ContainerPlan, policy: RestartPolicy, pod: PodContext, loop: Loop
    ) -> None:
        self.plan = plan
        self.step = Step.WAITING
        self.exit_code = 0
        self.has_started = False
        self._policy = policy
        self._pod = pod
        self._loop = loop
        self._state = self._waiting()
        self._last_state: Optional[ContainerState] = None
        self._restart_count = 0
        self._container_id = ""
        self._last_container_id = ""
        self._backoff_s = 0.0
        self._wake_mono_s: Optional[float] = None
        self._stopping = False
        self._killed = False
        self._bundle: Optional[Bundle] = None
        self._logs: dict[int, LogWriter] = {}
        self._reset_run()

    def _waiting(self) -> ContainerState:
        reason = _INITIALIZING if self._pod.initializes else _CREATING
        return ContainerState(phase=ContainerPhase.WAITING, reason=reason)

    def _reset_run(self) -> None:
        self._hold_id = 0
        self._run_id = 0
        self._is_open = False
        self._started_at_s: Optional[float] = None
        self._finished_at_s: Optional[float] = None
        self._status: Optional[int] = None
        self._start_error = ""
        self._failures = RankFailures(self.plan.mpi) if self.plan.mpi else None
        self._output: Optional[Output] = None
        self._pipe_deadline_mono_s = 0.0
        self._log_deadline_mono_s = 0.0
        self._oom_before = 0
        self._is_closed = True
        self._log_done = False

    # What the loop asks.

    @property
    def record(self) -> ContainerRecord:
        """The container as the record has it."""
        return ContainerRecord(
            name=self.plan.name,
            state=self._state,
            last_state=self._last_state,
            restart_count=self._restart_count,
            container_id=self._container_id,
            log_path=self._pod.layout.log_path(self.plan.name, self._restart_count),
            last_container_id=self._last_container_id,
        )

    @property
    def ids(self) -> tuple[int, int]:
        """Ids by which podinit speaks of it."""
        return self._hold_id, self._run_id

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        times = [self._wake_mono_s, self._output.wake_mono_s if self._output else None]
        return min((time_s for time_s in times if time_s is not None), default=None)

    @property
    def is_done(self) -> bool:
        """Whether it has ended and does not start again."""
        return self.step is Step.DONE

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping

    def writer(self, log_path: str) -> Optional[LogWriter]:
        """The log of this path, None if it is none of this container's."""
        for count, writer in self._logs.items():
            if log_path == self._pod.layout.log_path(self.plan.name, count):
                return writer
        return None

    # Starting.

    def begin(self) -> None:
        """Start the runtime; the bundle may still be on its way."""
        self._reset_run()
        self.step = Step.PREPARING
        self._container_id = os.urandom(32).hex()
        path = self._pod.layout.log_path(self.plan.name, self._restart_count)
        self._logs[self._restart_count] = LogWriter(
            os.path.join(self._pod.layout.root, path), self._loop.log_grew
        )
        os.makedirs(self._directory, mode=0o700)
        self._try_open()

    def _try_open(self) -> None:
        if self.plan.mpi is None and not self._hold_id:
            if self._bundle is None and self._pod.volumes.waits_for_bundle(self.plan):
                return
            try:
                self._open_runtime()
            except VolumeError as error:
                self._wait_for(error.reason, str(error))
                self._wake_mono_s = time.monotonic() + _VOLUMES_AGAIN_S
                return
            except (OSError, ParseError, PermanentError) as error:
                self._fail_start(f"cannot prepare the container: {error}")
                return
        self._try_run()

    def _wait_for(self, reason: str, message: str) -> None:
        """Show what keeps the container from being started."""
        state = ContainerState(phase=ContainerPhase.WAITING, reason=reason, message=message)
        if state != self._state:
            log("container waits", container=self.plan.name, reason=reason)
            self._state = state
            self._loop.changed()

    @property
    def _directory(self) -> str:
        return os.path.join(self._pod.dirs.work, f"{self.plan.name}.{self._restart_count}")

    def _open_runtime(self) -> None:
        # Where a volume is not there yet nothing has been opened: it is tried again.
        hold_id = self._loop.new_id()
        message = launch.open_message(self._pod, self.plan, self._directory, hold_id)
        self._hold_id, self._is_closed = hold_id, False
        errors = os.open(self._runtime_errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._loop.command(message, (errors,))
        finally:
            os.close(errors)

    @property
    def _runtime_errors(self) -> str:
        return os.path.join(self._directory, "runtime.err")

    def give_bundle(self, bundle: Bundle) -> None:
        """The bundle is there, its volumes are on the disk."""
        self._bundle = bundle
        if self.step is Step.PREPARING:
            self._try_open()

    def _try_run(self) -> None:
        if self.step is not Step.PREPARING or self._bundle is None or self._run_id:
            return
        if self.plan.mpi is None and not self._is_open:
            return
        try:
            late = environment.late_part(self.plan, self._bundle)
        except PermanentError as error:
            self._fail_start(str(error))
            return
        if late is not None and late.error:
            self._wait_for(late.reason, late.error)
            return
        self._oom_before = self._pod.oom.read()
        on_errors = self._failures.feed if self._failures else None
        writer = self._logs[self._restart_count]
        self._output = Output(self._loop, writer, on_errors, self._finish_if_drained)
        self._run_id = self._loop.new_id()
        fds = [self._stdin(self._bundle), *self._output.open()]
        try:
            self._loop.command(self._run_message(self._bundle), tuple(fds))
        finally:
            for fd in fds:
                os.close(fd)

    def _stdin(self, bundle: Bundle) -> int:
        if self.plan.mpi is not None:
            return rank_files.bundle_stdin(bundle)
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _run_message(self, bundle: Bundle) -> pod_messages.Run:
        pod, plan = self._pod, self.plan
        if plan.mpi is not None:
            return launch.mpi_message(pod, plan, plan.mpi, self._run_id, self._restart_count)
        return launch.run_message(pod, plan, bundle, self._run_id, self._hold_id)

    # What podinit reports.

    def on_event(self, event: Any) -> None:
        """One event whose id is among `ids`."""
        if isinstance(event, pod_messages.Opened):
            self._is_open = True
            self._try_run()
        elif isinstance(event, pod_messages.Started):
            self._on_started()
        elif isinstance(event, pod_messages.NotStarted):
            self._fail_start(event.message)
        elif isinstance(event, pod_messages.Exited):
            self._on_exited(event.status)
        elif isinstance(event, pod_messages.Closed):
            self._on_closed(event.status)

    def _on_started(self) -> None:
        self._started_at_s = time.time()
        self.step = Step.RUNNING
        self.has_started = True
        self._state = ContainerState(phase=ContainerPhase.RUNNING, started_at_s=self._started_at_s)
        log("container started", container=self.plan.name, restart=self._restart_count)
        self._loop.changed()
        if self._stopping:
            self.signal(signal.SIGKILL if self._killed else signal.SIGTERM)

    def _on_exited(self, status: int) -> None:
        self._status = status
        self._finished_at_s = time.time()
        code, _ = termination.exit_code_of(status)
        log("container exited", container=self.plan.name, code=code)
        if self.plan.mpi is not None and code != 0:
            self._start_error = rank_files.start_error(
                self._pod.layout, self.plan.name, self._restart_count
            )
        self._drain()

    def _on_closed(self, status: int) -> None:
        self._is_closed = True
        if self.step is Step.PREPARING and self._status is None:
            code, _ = termination.exit_code_of(status)
            errors = read_file(self._runtime_errors, 8192).decode(errors="replace").strip()
            why = errors or f"{self._pod.runtime.name} ended with {code}"
            if self._stopping and not errors:
                why = "stopped"
            self._fail_start(why[-2048:])

    def _fail_start(self, why: str) -> None:
        if self.step in (Step.DRAINING, Step.DONE):
            return
        self._start_error = why
        self._finished_at_s = time.time()
        log("container cannot start", container=self.plan.name, why=why.replace("\n", " ")[:500])
        self._drain()

    # Ending.

    def _drain(self) -> None:
        self.step = Step.DRAINING
        if self._hold_id and not self._is_closed:
            self._loop.command(pod_messages.Close(self._hold_id))
        if self._output is not None:
            self._output.drain()
        now = time.monotonic()
        self._pipe_deadline_mono_s = now + _PIPE_TIMEOUT_S
        self._log_deadline_mono_s = now + _LOG_TIMEOUT_S
        self._wake_mono_s = self._pipe_deadline_mono_s
        self._finish_if_drained()

    def _finish_if_drained(self) -> None:
        """Once every byte is in the log. The runtime may still be going down by then."""
        if self.step is not Step.DRAINING:
            return
        now = time.monotonic()
        writer = self._logs[self._restart_count]
        if not self._log_done:
            if self._output is not None and self._output.is_open:
                if now < self._pipe_deadline_mono_s:
                    return
                self._output.cut()
            self._log_done = True
            self._wake_mono_s = self._log_deadline_mono_s
            writer.close()
        if writer.closed or now >= self._log_deadline_mono_s:
            self._finish()

    def _finish(self) -> None:
        now_s = self._finished_at_s or time.time()
        if self._start_error or self._status is None:
            state = termination.not_started(self.plan.name, self._start_error, now_s)
        else:
            if self._status != 0 and self._failures is not None and self._failures.exit_code:
                self._status = self._failures.exit_code << 8
            code, _ = termination.exit_code_of(self._status)
            state = termination.ended(
                self._status,
                message=self._message(code),
                oom=self._pod.oom.read() > self._oom_before
                and (self._pod.is_alone or code == 128 + signal.SIGKILL),
                started_at_s=self._started_at_s,
                finished_at_s=now_s,
            )
        self.exit_code = state.exit_code or 0
        ran_s = now_s - (self._started_at_s or now_s)
        self._wake_mono_s = None
        if not self._stopping and restart.should_restart(self._policy, self.exit_code):
            self._back_off(state, ran_s)
        else:
            self.step = Step.DONE
            self._state = state
        self._loop.changed()

    def _message(self, code: int) -> str:
        path = mounts.message_file(self._directory)
        if self.plan.mpi is not None:
            path = rank_files.termination_message(
                self._pod.layout, self.plan.name, self._restart_count
            )
        text = termination.read_message(path)
        if (
            text
            or code == 0
            or self.plan.termination_message_policy != (termination.FALLBACK_TO_LOGS)
        ):
            return text
        writer = self._logs[self._restart_count]
        _, tail = writer.read(max(0, writer.end - 64 * 1024), 64 * 1024)
        return termination.message_from_log(tail)

    def _back_off(self, state: ContainerState, ran_s: float) -> None:
        self._backoff_s = restart.next_backoff_s(self._backoff_s, ran_s)
        self._last_state, self._last_container_id = state, self._container_id
        self._state = ContainerState(
            phase=ContainerPhase.WAITING,
            reason="CrashLoopBackOff",
            message=f"back-off {self._backoff_s:.0f}s restarting failed container={self.plan.name}",
        )
        self.step = Step.BACKOFF
        self._wake_mono_s = time.monotonic() + self._backoff_s

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        if self._output is not None:
            self._output.tick()
        if self._wake_mono_s is None or time.monotonic() < self._wake_mono_s:
            return
        self._wake_mono_s = None
        if self.step is Step.DRAINING:
            self._finish_if_drained()
        elif self.step is Step.BACKOFF:
            self._restart_count += 1
            self._state = self._waiting()
            self.begin()
            self._loop.changed()
        elif self.step is Step.PREPARING:
            self._try_open()
        elif self.step is Step.RUNNING and self._killed:
            self._loop.command(pod_messages.Signal(self._run_id, signal.SIGKILL))

    def log_written(self) -> None:
        """The thread of the log has done something."""
        if self.step is Step.DRAINING and self._log_done:
            self._finish_if_drained()

    # Stopping.

    def stop(self) -> None:
        """Ask the container's process to end, and do not start it again."""
        if self._stopping:
            return
        self._stopping = True
        if self.step is Step.WAITING:
            # As upstream leaves a container whose pod ended before its turn: waiting.
            self.step = Step.DONE
            self._loop.changed()
        elif self.step is Step.RUNNING:
            self.signal(signal.SIGTERM)
        elif self.step is Step.BACKOFF:
            self._state = self._last_state or termination.never_ran(time.time())
            self._last_state, self._last_container_id = None, ""
            self._end_before_run()
        elif self.step is Step.PREPARING and not self._run_id:
            self._state = termination.never_ran(time.time())
            self._end_before_run()

    def _end_before_run(self) -> None:
        if self._hold_id and not self._is_closed:
            self._loop.command(pod_messages.Close(self._hold_id))
        self.step = Step.DONE
        self.exit_code = self._state.exit_code or 0
        self._wake_mono_s = None
        self._logs[self._restart_count].close()
        self._loop.changed()

    def lost(self) -> None:
        """podinit is gone, and all its processes."""
        self._is_closed = True
        if self.step is Step.BACKOFF:
            self.stop()
        self._stopping = True  # before anything decides whether to start it again
        if self.step is Step.WAITING:
            # Not as stop leaves it: what comes after an init container must not take it for ended.
            self._state = termination.not_started(self.plan.name, _LOST, time.time())
            self.exit_code = termination.START_ERROR_CODE
            self.step = Step.DONE
            self._loop.changed()
        elif self.step is Step.RUNNING:
            self._on_exited(signal.SIGKILL)
        elif self.step is Step.PREPARING:
            self._fail_start(_LOST)
        elif self.step is Step.DRAINING:
            self._finish_if_drained()

    def kill(self) -> None:
        """The grace period is over."""
        self._killed = True
        if self.step is Step.RUNNING:
            self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Signal the container's main process; in an MPI run every rank."""
        if self.plan.mpi is None:
            if number == signal.SIGTERM:
                number = launch.stop_signal(self.plan.image.config.stop_signal)
            self._loop.command(pod_messages.Signal(self._run_id, number))
            return
        step = rank_files.step_id(self._pod.layout, self.plan.name, self._restart_count)
        if step:
            self._signal_step(step, number)
        if not step or number == signal.SIGKILL:
            # srun ends its step with SIGKILL when it is told to terminate.
            self._loop.command(pod_messages.Signal(self._run_id, signal.SIGTERM))
            self._wake_mono_s = time.monotonic() + _SRUN_END_TIMEOUT_S

    def _signal_step(self, step: str, number: int) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            message = launch.step_signal_message(self._pod, step, number, self._loop.new_id())
            self._loop.command(message, (null, null, null))
        finally:
            os.close(null)
