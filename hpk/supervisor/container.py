"""One container: from its runtime's start to the last line of its log, and again if it restarts.

A state machine driven by the supervisor's loop; nothing here blocks. A container's runtime is
started at once, beside the dial to the kubelet; the Pod's command enters it when the bundle is
there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Callable, Optional, Protocol

from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError, PermanentError
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan, RestartPolicy
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState
from hpk.mpi.base import LaunchRequest
from hpk.mpi.registry import LAUNCHERS
from hpk.runtimes.base import HoldRequest, NodeFacts, Runtime
from hpk.supervisor import environment, mounts, pod_messages, rank_files, restart, termination
from hpk.supervisor.crilog import LineFormer, LogWriter
from hpk.supervisor.files import log, read_file
from hpk.supervisor.localdir import LocalDirs
from hpk.supervisor.memory import OomCounter
from hpk.supervisor.opening import open_command
from hpk.supervisor.pod_volumes import PodVolumes
from hpk.supervisor.sub_path import VolumeError

_DRAIN_TIMEOUT_S = 5.0
_READ_BYTES = 64 * 1024
_PIPE_BYTES = 1024 * 1024
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


class Loop(Protocol):
    """What a container asks of the supervisor's loop."""

    def command(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """Send to pod_messages."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable; None to stop."""

    def unwatch(self, fd: int) -> None:
        """Stop that."""

    def changed(self) -> None:
        """The container's record is a new one."""

    def log_grew(self) -> None:
        """A log has more to read; may be called from any thread."""

    def new_id(self) -> int:
        """An id for podinit that nobody had yet."""


@dataclass(frozen=True)
class PodContext:
    """What all containers of the pod share.

    :param rank_program: argv of the supervisor's own program on other nodes, without subcommand.
    :param host: Slurm's name of this node.
    :param job_env: the environment of the batch script.
    :param is_alone: it has one container, so that whatever happens in its cgroup is that one's.
    :param initializes: it has init containers.
    """

    layout: AttemptLayout
    dirs: LocalDirs
    volumes: PodVolumes
    runtime: Runtime
    facts: NodeFacts
    hostname: str
    tool_env: Mapping[str, str]
    job_env: Mapping[str, str]
    rank_program: tuple[str, ...]
    host: str
    oom: OomCounter
    is_alone: bool
    initializes: bool


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
        self._backoff_s = 0.0
        self._wake_mono_s: Optional[float] = None
        self._stopping = False
        self._killed = False
        self._bundle: Optional[Bundle] = None
        self._logs: dict[int, LogWriter] = {}
        self._paused: set[int] = set()
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
        self._rank_failure: Optional[int] = None
        self._rank_line = b""
        self._pipes: dict[int, LineFormer] = {}
        self._drain_deadline_mono_s: Optional[float] = None
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
        )

    @property
    def ids(self) -> tuple[int, int]:
        """Ids by which podinit speaks of it."""
        return self._hold_id, self._run_id

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        return self._wake_mono_s

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
        plan = self.plan
        volumes = self._pod.volumes.mounts_of(plan)
        scratch = os.path.join(self._directory, "overlay")
        os.mkdir(scratch, 0o700)
        binds = mounts.container_mounts(plan, self._pod.dirs, self._directory, volumes)
        passwd, group = mounts.user_files(self._directory)
        request = HoldRequest(
            image_path=plan.image.path,
            scratch=scratch,
            mounts=binds,
            gpus=plan.resources.gpus > 0,
            uid=plan.uid,
            gid=plan.gid,
            read_only=plan.read_only_root,
        )
        env = dict(self._pod.tool_env)
        env.update(self._pod.runtime.environment(self._pod.dirs.work))
        self._hold_id = self._loop.new_id()
        self._is_closed = False
        command = open_command(
            self._hold_id,
            self._pod.runtime,
            self._pod.facts,
            request,
            env=env,
            binds=(
                pod_messages.Bind(passwd, "/etc/passwd"),
                pod_messages.Bind(group, "/etc/group"),
            ),
        )
        errors = os.open(self._runtime_errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._loop.command(command, (errors,))
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
        out_read, out_write = _output_pipe()
        err_read, err_write = _output_pipe()
        self._pipes = {out_read: LineFormer("stdout"), err_read: LineFormer("stderr")}
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._run_id = self._loop.new_id()
            command = self._mpi_command() if self.plan.mpi else self._command()
            if self.plan.mpi:
                os.close(stdin)
                stdin = rank_files.bundle_stdin(self._bundle)
            self._loop.command(command, (stdin, out_write, err_write))
        finally:
            for fd in (stdin, out_write, err_write):
                os.close(fd)
        for fd in self._pipes:
            self._loop.watch(fd, lambda fd=fd: self._on_output(fd))  # type: ignore[misc]

    def _command(self) -> pod_messages.Run:
        bundle = self._bundle or Bundle((), ())
        env = environment.container_environment(self.plan, bundle, self._pod.hostname)
        return pod_messages.Run(
            id=self._run_id,
            container=self._hold_id,
            argv=environment.container_argv(self.plan, bundle),
            env=tuple(env.items()),
            working_dir=self.plan.working_dir or "/",
            links=tuple(
                pod_messages.Bind(to, where) for where, to in mounts.message_links(self.plan)
            ),
            dropped_capabilities=self.plan.dropped_capabilities,
            emulates_root=self.plan.uid == 0,
        )

    def _mpi_command(self) -> pod_messages.Run:
        plan = self.plan
        if plan.mpi is None:
            raise AssertionError("not an MPI container")
        rank_argv = (
            *self._pod.rank_program,
            "rank",
            f"--attempt-dir={self._pod.layout.root}",
            f"--container={plan.name}",
            f"--restart={self._restart_count}",
            f"--host={self._pod.host}",
            f"--disk={self._pod.volumes.where.disk}",
            f"--memory={self._pod.volumes.where.memory}",
        )
        request = LaunchRequest(plan.mpi, rank_argv, tuple(self._pod.job_env.items()), plan.name)
        launcher = LAUNCHERS[plan.mpi.launcher]
        os.makedirs(rank_files.directory(self._pod.layout), mode=0o700, exist_ok=True)
        return pod_messages.Run(
            id=self._run_id,
            container=None,
            argv=launcher.argv(request),
            env=launcher.environment(request),
            working_dir="",
        )

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
            return
        self._finish_if_drained()

    def _fail_start(self, why: str) -> None:
        if self.step in (Step.DRAINING, Step.DONE):
            return
        self._start_error = why
        self._finished_at_s = time.time()
        log("container cannot start", container=self.plan.name, why=why.replace("\n", " ")[:500])
        self._drain()

    # Output.

    def _on_output(self, fd: int) -> None:
        writer = self._logs[self._restart_count]
        if writer.is_full and self.step is Step.RUNNING:
            # The container waits in write(2) while the pipe is full; look again in a moment.
            self._loop.unwatch(fd)
            self._wake_mono_s = time.monotonic() + 0.05
            self._paused.add(fd)
            return
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        former = self._pipes[fd]
        if data:
            if self.plan.mpi is not None and former.stream == "stderr":
                self._look_for_failure(data)
            writer.append(former.feed(data, time.time_ns()))
            return
        writer.append(former.finish(time.time_ns()))
        self._end_pipe(fd)
        self._finish_if_drained()

    def _look_for_failure(self, data: bytes) -> None:
        """Note the first rank that failed; the others were killed for it."""
        if self._rank_failure is not None or self.plan.mpi is None:
            return
        launcher = LAUNCHERS[self.plan.mpi.launcher]
        *lines, self._rank_line = (self._rank_line + data).split(b"\n")
        self._rank_line = self._rank_line[-1024:]
        found = (launcher.first_failure(line) for line in lines)
        self._rank_failure = next((code for code in found if code is not None), None)

    def _end_pipe(self, fd: int) -> None:
        self._loop.unwatch(fd)
        self._paused.discard(fd)
        del self._pipes[fd]
        os.close(fd)

    # Ending.

    def _drain(self) -> None:
        self.step = Step.DRAINING
        if self._hold_id and not self._is_closed:
            self._loop.command(pod_messages.Close(self._hold_id))
        self._drain_deadline_mono_s = time.monotonic() + _DRAIN_TIMEOUT_S
        self._wake_mono_s = self._drain_deadline_mono_s
        self._finish_if_drained()

    def _finish_if_drained(self) -> None:
        if self.step is not Step.DRAINING:
            return
        late = (
            self._drain_deadline_mono_s is not None
            and time.monotonic() >= self._drain_deadline_mono_s
        )
        writer = self._logs[self._restart_count]
        if not late and (self._pipes or not self._is_closed):
            return
        if not self._log_done:
            self._log_done = True
            for fd in list(self._pipes):
                writer.append(self._pipes[fd].finish(time.time_ns()))
                self._end_pipe(fd)
            writer.close()
        if not late and not writer.closed:
            return
        self._finish()

    def _finish(self) -> None:
        now_s = self._finished_at_s or time.time()
        if self._start_error or self._status is None:
            state = termination.not_started(self.plan.name, self._start_error, now_s)
        else:
            if self._status != 0 and self._rank_failure:
                self._status = self._rank_failure << 8
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
        self._last_state = state
        self._state = ContainerState(
            phase=ContainerPhase.WAITING,
            reason="CrashLoopBackOff",
            message=f"back-off {self._backoff_s:.0f}s restarting failed container={self.plan.name}",
        )
        self.step = Step.BACKOFF
        self._wake_mono_s = time.monotonic() + self._backoff_s

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        now = time.monotonic()
        if self._wake_mono_s is None or now < self._wake_mono_s:
            return
        self._wake_mono_s = None
        for fd in list(self._paused):
            self._paused.discard(fd)
            self._loop.watch(fd, lambda fd=fd: self._on_output(fd))  # type: ignore[misc]
        if self.step is Step.DRAINING:
            self._wake_mono_s = self._drain_deadline_mono_s
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
            self._last_state = None
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
                number = stop_signal(self.plan.image.config.stop_signal)
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
        name = signal.Signals(number).name[3:]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            command = pod_messages.Run(
                id=self._loop.new_id(),
                container=None,
                argv=("scancel", f"--signal={name}", step),
                env=tuple(self._pod.tool_env.items()),
                working_dir="",
            )
            self._loop.command(command, (null, null, null))
        finally:
            os.close(null)


def stop_signal(name: str) -> int:
    """The signal an image names in STOPSIGNAL (``SIGQUIT``, ``3``), SIGTERM where it names none."""
    text = name.strip().upper()
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    if text:
        with contextlib.suppress(KeyError):
            return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
    return int(signal.SIGTERM)


def _output_pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_fd, False)
    with contextlib.suppress(OSError, AttributeError):
        import fcntl

        fcntl.fcntl(write_fd, 1031, _PIPE_BYTES)  # F_SETPIPE_SZ
    return read_fd, write_fd
