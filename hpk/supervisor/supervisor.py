"""The pod's life: one loop that starts, watches, restarts and stops the containers.

The loop's thread alone changes state. Disk, network and log writing are other threads, which post
events to it; processes are podinit's. The record is what everybody outside believes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

from hpk.model import frames
from hpk.model.bundle import Bundle
from hpk.model.errors import HpkError, ParseError, PermanentError
from hpk.model.ids import SlurmJobId
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan, JobSpec
from hpk.model.record import (
    RECORD_VERSION,
    ContainerEvent,
    ContainerPhase,
    ContainerRecord,
    PodPhase,
    StopCause,
    SupervisorRecord,
)
from hpk.mpi.registry import LAUNCHERS
from hpk.runtimes.registry import RUNTIMES
from hpk.supervisor import forwarder, mounts, node, pod_messages, sequence, termination
from hpk.supervisor.channel import Channel, ChannelConfig
from hpk.supervisor.container import Container
from hpk.supervisor.environment import with_api_port
from hpk.supervisor.files import log
from hpk.supervisor.hosts import pod_hostname
from hpk.supervisor.inits import Init, Inits
from hpk.supervisor.launch import PodContext
from hpk.supervisor.localdir import LocalDirs, make_local_dirs, sweep_local_dirs
from hpk.supervisor.loop import Listener, Step, T
from hpk.supervisor.memory import OomCounter
from hpk.supervisor.notes import Notes
from hpk.supervisor.opening import write_runtime_files
from hpk.supervisor.pod_volumes import PodVolumes, pod_dirs
from hpk.supervisor.records import RecordStore
from hpk.supervisor.size_limits import watch_size_limits
from hpk.supervisor.stop_request import read_stop_request

_POLL_S = 2.0
_END_MARGIN_S = 3
"""What of Slurm's KillWait the supervisor keeps for itself: to record the end and to clear up."""
_EVICTED_GRACE_S = 1
_FINAL_SYNC_S = 30.0
_FINAL_ACK_S = 5.0
_FINAL_READERS_S = 10.0
_PODINIT_END_S = 10.0


@dataclass(frozen=True)
class Identity:
    """This run of the supervisor.

    :param program: argv that runs this same program on any node of the job.
    :param env: the environment of the batch script.
    """

    spec: JobSpec
    layout: AttemptLayout
    job_id: SlurmJobId
    program: tuple[str, ...]
    env: Mapping[str, str]


class Supervisor:
    """Runs one pod to its end. `run` returns the exit code for Slurm."""

    def __init__(self, identity: Identity, inits: Inits) -> None:
        self._me = identity
        self._plan = identity.spec.plan
        self._inits = inits
        self._selector = selectors.DefaultSelector()
        self._events: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._last_id = 0
        self._listeners: dict[int, Listener] = {}
        self._notes = Notes()
        self._init_containers: list[Container] = []
        self._containers: list[Container] = []
        self._volumes: Optional[PodVolumes] = None
        self._dirs: Optional[LocalDirs] = None
        self._api_port = 0
        self._rejection = ""
        self._has_bundle = False
        self._phase = PodPhase.STARTING
        self._cause: Optional[StopCause] = None
        self._message = ""
        self._kill_mono_s: Optional[float] = None
        self._has_grace = True
        self._seq = 0
        self._started_at_s = time.time()
        self._started_mono_s = time.monotonic()
        self._alive_mono_s = time.monotonic()
        self._heartbeat: Optional[tuple[int, int]] = None
        self._poll_mono_s = 0.0
        self._failed: tuple[ContainerRecord, ...] = ()
        self._failed_inits: tuple[ContainerRecord, ...] = ()
        self._init_failed = False
        self._is_leaving = False
        self._host = node.host_name(identity.env)
        self._control_plane = node.control_plane_address(identity.spec.settings.endpoint_path)
        self._channel = Channel(
            ChannelConfig(
                spec=identity.spec,
                job_id=identity.job_id,
                token_path=identity.layout.token,
                read_log=self._read_log,
                on_frame=lambda frame: self._post(lambda: self._on_frame(frame)),
            )
        )
        self._store = RecordStore(identity.layout.record, self._channel.publish)

    # The loop.

    def run(self) -> int:
        """To the end of the pod; the exit code for Slurm."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._post(self._on_signal))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._on_wake)
        for init in self._inits.all:
            self._selector.register(
                init.socket,
                selectors.EVENT_READ,
                lambda init=init: self._on_init(init),
            )
        self._channel.start()
        try:
            self._live()
        except Exception as error:  # whatever it is, the pod must not end without a record
            self._fail(error)
        return self._finish()

    def _live(self) -> None:
        try:
            self._prepare()
        except (HpkError, OSError) as error:
            self._fail_setup(str(error))
        while not self._is_over:
            self._turn()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            key.data()
        while self._events:
            self._events.popleft()()
        for container in self._all:
            container.tick()
        self._advance()
        if time.monotonic() >= self._poll_mono_s:
            self._poll_mono_s = time.monotonic() + _POLL_S
            self._poll()
        if self._kill_mono_s is not None and time.monotonic() >= self._kill_mono_s:
            self._kill_mono_s = None
            log("grace period over, kill")
            at_once = self._cause is StopCause.SIGNALLED or not self._has_grace
            for container in self._all:
                container.stop()
                container.kill(at_once=at_once)

    def _timeout(self) -> float:
        times = [self._poll_mono_s]
        times += [c.wake_mono_s for c in self._all if c.wake_mono_s is not None]
        if self._kill_mono_s is not None:
            times.append(self._kill_mono_s)
        return max(0.0, min(times) - time.monotonic())

    @property
    def _all(self) -> list[Container]:
        """Every container of the pod, in the order they begin."""
        return self._init_containers + self._containers

    @property
    def _is_over(self) -> bool:
        if self._failed:
            return True
        return bool(self._containers) and all(c.is_done for c in self._all)

    def _advance(self) -> None:
        """Begin those whose turn it is; at the end stop the sidecars, the last first."""
        if self._failed or not self._containers:
            return
        if self._phase is not PodPhase.STOPPING and not self._init_failed:
            self._begin_next()
        if any(not c.is_done for c in self._containers):
            return
        for container in reversed(self._init_containers):
            if container.is_done:
                continue
            if not self._is_leaving:
                self._is_leaving = True
                for sidecar in self._init_containers:
                    sidecar.pod_stops(with_hook=True)
                if self._kill_mono_s is None and self._phase is not PodPhase.STOPPING:
                    self._kill_mono_s = time.monotonic() + self._plan.grace_period_s
            container.stop()
            if not container.is_done:
                return

    def _begin_next(self) -> None:
        while True:
            views = [_view(container) for container in self._init_containers]
            turn, index = sequence.next_turn(views)
            if turn is sequence.Turn.INIT:
                self._init_containers[index].begin()
                self.changed()
                continue
            if turn is sequence.Turn.FAILED:
                log(
                    "an init container has failed", container=self._init_containers[index].plan.name
                )
                self._init_failed = True
                for container in self._containers:
                    container.stop()
            waiting = [c for c in self._containers if c.step is Step.WAITING]
            if turn is sequence.Turn.MAIN and waiting:
                for container in waiting:
                    container.begin()
                self.changed()
            return

    def _post(self, event: Callable[[], None]) -> None:
        self._events.append(event)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"e")

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    # What containers ask (hpk.supervisor.container.Loop).

    def command(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """See Loop.command."""
        self._inits.send(message, fds)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """See hpk.supervisor.output.Watcher."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def unwatch(self, fd: int) -> None:
        """See hpk.supervisor.output.Watcher."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def log_grew(self) -> None:
        """See Loop.log_grew."""
        self._channel.wake()
        if self._draining:
            self._post(self._on_log_written)

    def new_id(self, listener: Optional[Listener] = None) -> int:
        """See Loop.new_id."""
        self._last_id += 1
        if listener is not None:
            self._listeners[self._last_id] = listener
        return self._last_id

    def note(self, container: str, reason: str, message: str, *, is_warning: bool) -> None:
        """See Loop.note."""
        now_s = time.time()
        log("note", container=container, reason=reason)
        event = ContainerEvent(container, is_warning, reason, message, 1, now_s, now_s)
        if self._notes.add(event):
            self.changed()

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """See Loop.in_thread."""

        def do() -> None:
            result = work()
            self._post(lambda: then(result))

        threading.Thread(target=do, name="check", daemon=True).start()

    @property
    def pod_ip(self) -> str:
        """See Loop.pod_ip."""
        towards = self._channel.host_address or self._control_plane
        return node.address_towards(towards, self._host)

    def changed(self) -> None:
        """See Loop.changed."""
        if self._phase is PodPhase.STARTING and any(c.step is Step.RUNNING for c in self._all):
            self._phase = PodPhase.RUNNING
        self._seq += 1
        self._store.put(self._record())

    @property
    def _draining(self) -> bool:
        return any(c.step is Step.DRAINING for c in self._all)

    def _on_log_written(self) -> None:
        for container in self._all:
            container.log_written()

    def _record(self) -> SupervisorRecord:
        finished = self._phase is PodPhase.FINISHED
        return SupervisorRecord(
            version=RECORD_VERSION,
            uid=self._plan.pod.uid,
            nonce=self._me.spec.nonce,
            job_id=self._me.job_id,
            seq=self._seq,
            phase=self._phase,
            host=self._host,
            host_ip=self.pod_ip,
            started_at_s=self._started_at_s,
            containers=self._failed or tuple(c.record for c in self._containers),
            finished_at_s=time.time() if finished else None,
            stop_cause=self._cause,
            message=self._message,
            init_containers=self._failed_inits or tuple(c.record for c in self._init_containers),
            events=self._notes.tell(time.time()),
        )

    # Starting.

    def _prepare(self) -> None:
        spec, plan = self._me.spec, self._plan
        runtime = RUNTIMES.get(plan.runtime)
        if runtime is None:
            raise PermanentError(f"no container runtime named {plan.runtime!r}")
        for container in plan.containers:
            if container.mpi is not None and container.mpi.launcher not in LAUNCHERS:
                raise PermanentError(f"no MPI launcher named {container.mpi.launcher!r}")
        tool_env = node.tool_environment(self._me.env)
        facts = node.probe_node(runtime.programs, spec.settings.runtime_path, tool_env["PATH"])
        unusable = runtime.unusable(facts)
        if unusable:
            raise PermanentError(unusable)
        dirs = make_local_dirs(spec.settings.local_root, str(self._me.job_id))
        self._dirs = dirs
        mounts.write_node_files(dirs.work, plan, self.pod_ip)
        write_runtime_files(runtime, facts, dirs.work)
        self._forward()
        volumes = PodVolumes(spec, pod_dirs(self._me.layout, dirs, self._me.env))
        self._volumes = volumes
        volumes.prepare()
        if volumes.where.alias and self._inits.has_pod:
            where = volumes.where
            self._inits.send(pod_messages.Show(self.new_id(), where.tmpfs, where.alias))
        watch_size_limits(
            {volumes.empty_dir(item): item for item in plan.empty_dirs},
            lambda message: self._post(lambda: self._evict(message)),
        )
        pod = PodContext(
            layout=self._me.layout,
            dirs=dirs,
            volumes=volumes,
            runtime=runtime,
            facts=facts,
            hostname=pod_hostname(plan, os.uname().nodename),
            tool_env=tool_env,
            job_env=self._me.env,
            rank_program=self._me.program,
            host=self._host,
            oom=OomCounter(),
            is_alone=len(plan.init_containers) + len(plan.containers) == 1,
            initializes=bool(plan.init_containers),
            grace_period_s=plan.grace_period_s,
            began_mono_s=self._started_mono_s,
        )
        self._init_containers = [
            Container(
                item,
                sequence.init_restart_policy(item, plan.restart_policy),
                pod,
                self,
                is_init=True,
            )
            for item in plan.init_containers
        ]
        self._containers = [
            Container(item, plan.restart_policy, pod, self) for item in plan.containers
        ]
        self._advance()
        self.changed()

    def _forward(self) -> None:
        listener = forwarder.listen()
        self._api_port = forwarder.port_of(listener)
        forwarder.Forwarder(listener, self._me.spec.settings.endpoint_path).start()

    def _fail_setup(self, why: str) -> None:
        """Nothing could be started: every container gets the reason."""
        log("cannot set the pod up", why=why)
        self._cause, self._message = StopCause.SETUP_FAILED, why
        self._failed = tuple(self._not_started(plan, why) for plan in self._plan.containers)
        self._failed_inits = tuple(
            self._not_started(plan, why) for plan in self._plan.init_containers
        )

    def _fail(self, error: Exception) -> None:
        """The loop itself failed: what has ended stays as it ended, the rest ends here."""
        log("the supervisor failed", trace=traceback.format_exc())
        why = f"the supervisor failed: {type(error).__name__}: {error}"
        self._cause = self._cause or StopCause.SETUP_FAILED
        self._message = self._message or why
        plan = self._plan
        self._failed = self._failed or tuple(
            self._cut_off(item, self._containers, why) for item in plan.containers
        )
        self._failed_inits = self._failed_inits or tuple(
            self._cut_off(item, self._init_containers, why) for item in plan.init_containers
        )

    def _cut_off(
        self, plan: ContainerPlan, containers: list[Container], why: str
    ) -> ContainerRecord:
        made = (c.record for c in containers if c.plan.name == plan.name)
        record = next(made, None) or self._not_started(plan, why)
        state = record.state
        if state.phase is ContainerPhase.RUNNING:
            state = termination.overtaken(why, started_at_s=state.started_at_s, at_s=time.time())
        elif state.phase is ContainerPhase.WAITING:
            state = termination.not_started(plan.name, why, time.time())
        return replace(record, state=state)

    def _not_started(self, plan: ContainerPlan, why: str) -> ContainerRecord:
        return ContainerRecord(
            name=plan.name,
            state=termination.not_started(plan.name, why, time.time()),
            last_state=None,
            restart_count=0,
            container_id="",
            log_path=self._me.layout.log_path(plan.name, 0),
        )

    # What others say.

    def _on_init(self, init: Init) -> None:
        received = pod_messages.receive(init.socket)
        if received is None:
            self._selector.unregister(init.socket)
            self._on_init_lost(init)
            return
        event, _ = received
        if isinstance(event, pod_messages.Ready):
            if event.message:
                self._fail_setup(event.message)
            return
        listener = self._listeners.get(event.id)
        if isinstance(event, (pod_messages.Exited, pod_messages.NotStarted, pod_messages.Closed)):
            self._listeners.pop(event.id, None)
        if listener is not None:
            listener(event)

    def _on_init_lost(self, init: Init) -> None:
        """podinit was killed, and the kernel has killed everything below with it."""
        if self._failed or self._is_over:
            return
        log("podinit has ended, and with it the pod's processes")
        for container in self._all:
            if (container.plan.mpi is not None) == init.is_host:
                container.lost()

    def _on_frame(self, frame: Any) -> None:
        if isinstance(frame, frames.Welcome):
            log("channel: welcome")
            self._alive_mono_s = time.monotonic()
            if not self._has_bundle:
                self._channel.send(frames.BundleRequest(id=self.new_id()))
        elif isinstance(frame, frames.BundleReply):
            self._on_bundle(frame.bundle)
        elif isinstance(frame, frames.Stop):
            self._stop(StopCause.REQUESTED, frame.grace_period_s)
        elif isinstance(frame, frames.SignalContainer):
            self._signal_container(frame)
        elif isinstance(frame, frames.Reject):
            if frame.reason != self._rejection:  # it is tried again for as long as the pod lives
                log("channel: rejected", reason=frame.reason, stop=frame.stop)
            self._rejection = frame.reason
            if frame.stop:
                self._stop(StopCause.REQUESTED, self._plan.grace_period_s)

    def _signal_container(self, frame: frames.SignalContainer) -> None:
        log("signal a container", container=frame.container, number=frame.number)
        for container in self._all:
            if container.plan.name == frame.container and 0 < frame.number < signal.NSIG:
                container.signal_as_process_1(frame.number, frame.not_before_s)

    def _on_bundle(self, bundle: Bundle) -> None:
        if self._volumes is None or self._failed:
            return
        try:
            self._volumes.write(bundle)
        except (OSError, ParseError) as error:
            log("cannot write the bundle", error=error)
            if not self._has_bundle:
                self._message = f"cannot write the pod's volumes: {error}"
                self._stop(StopCause.SETUP_FAILED, 0)
            return
        self._has_bundle = True
        here = with_api_port(bundle, self._api_port)
        for container in self._all:
            # Ranks run on other nodes, too, and each of these has a port of its own.
            container.give_bundle(here if container.plan.mpi is None else bundle)

    def _on_signal(self) -> None:
        allowed_s = max(1, self._me.spec.settings.kill_wait_s - _END_MARGIN_S)
        grace_s = min(self._plan.grace_period_s, allowed_s)
        self._stop(StopCause.SIGNALLED, grace_s)

    def _evict(self, why: str) -> None:
        if self._phase is not PodPhase.STOPPING and not self._is_over:
            self._message = why
            self._stop(StopCause.EVICTED, min(_EVICTED_GRACE_S, self._plan.grace_period_s))

    def _stop(self, cause: StopCause, grace_s: int) -> None:
        """Stop the pod; what stopped it first stays the cause, a shorter grace wins.

        Sidecars are stopped when all others have ended.
        """
        kill_mono_s = time.monotonic() + max(0, grace_s)
        if self._kill_mono_s is not None:
            kill_mono_s = min(self._kill_mono_s, kill_mono_s)
        if self._phase is PodPhase.STOPPING:
            self._has_grace = self._has_grace and grace_s > 0
            if self._kill_mono_s is not None:
                self._kill_mono_s = kill_mono_s
            return
        if self._is_over:
            return
        log("stop the pod", cause=cause.value, grace_s=grace_s)
        self._cause, self._phase = cause, PodPhase.STOPPING
        self._kill_mono_s = kill_mono_s
        self.changed()
        self._has_grace = grace_s > 0
        for container in self._all:
            container.pod_stops(with_hook=self._has_grace)
        for container in self._all:
            if not container.plan.restart_always:
                container.stop()
        self._advance()

    def _poll(self) -> None:
        """What nobody tells us: the stop file, the control plane's life, the deadline."""
        now = time.monotonic()
        if self._notes.is_overdue(time.time()):
            self.changed()
        stop = read_stop_request(self._me.layout.stop_request)
        if stop is not None:
            self._stop(StopCause.REQUESTED, stop.grace_period_s)
        settings = self._me.spec.settings
        with contextlib.suppress(OSError):
            info = os.stat(settings.heartbeat_path)
            beat = (info.st_ino, info.st_mtime_ns)
            if self._heartbeat is not None and beat != self._heartbeat:
                self._alive_mono_s = now
            self._heartbeat = beat
        if self._channel.is_welcome:
            self._alive_mono_s = now
        if now - self._alive_mono_s > settings.orphan_timeout_s:
            if self._phase is not PodPhase.STOPPING:
                self._message = (
                    f"no control plane for {settings.orphan_timeout_s} s: the pod gave its "
                    "node back"
                )
            self._stop(StopCause.ORPHANED, self._plan.grace_period_s)
        deadline_s = self._plan.active_deadline_s
        if deadline_s is not None and now - self._started_mono_s > deadline_s:
            self._stop(StopCause.DEADLINE, self._plan.grace_period_s)

    def _read_log(self, path: str, offset: int, limit: int) -> tuple[int, bytes, bool]:
        """Called by the channel's thread."""
        for container in self._all:
            writer = container.writer(path)
            if writer is not None:
                closed = writer.closed  # before reading: nothing can follow what is read after it
                offset, data = writer.read(offset, limit)
                return offset, data, closed and offset + len(data) >= writer.end
        raise ParseError(f"{path!r} is no log of this pod")

    # Ending.

    def _finish(self) -> int:
        self._phase = PodPhase.FINISHED
        self._cause = self._cause or StopCause.COMPLETED
        self.changed()
        if not self._store.wait_written(self._seq, _FINAL_SYNC_S):
            log("the final record is not on the disk")
        for init in self._inits.all:
            with contextlib.suppress(KeyError):
                self._selector.unregister(init.socket)
        self._inits.end(_PODINIT_END_S)
        # Before any waiting: where Slurm is ending the job it may kill us at any moment.
        if self._volumes is not None:
            self._volumes.remove_shared()
        if self._dirs is not None:
            self._dirs.remove()
            sweep_local_dirs(self._me.spec.settings.local_root)
        self._wait_for_kubelet()
        self._channel.close(1.0)
        decisive = [c for c in self._all if not c.plan.restart_always]
        code = 1 if self._failed else next((c.exit_code for c in decisive if c.exit_code), 0)
        log("pod finished", cause=self._cause.value, code=code)
        return code

    def _wait_for_kubelet(self) -> None:
        """Give the kubelet the last record, and readers the rest of the logs."""
        ack_deadline = time.monotonic() + _FINAL_ACK_S
        read_deadline = time.monotonic() + _FINAL_READERS_S
        while self._channel.is_welcome:
            now = time.monotonic()
            acked = self._channel.acked_seq >= self._seq
            if (acked or now > ack_deadline) and (self._channel.is_idle or now > read_deadline):
                return
            self._selector.select(0.05)
            self._on_wake()


def _view(container: Container) -> sequence.InitView:
    return sequence.InitView(
        is_sidecar=container.plan.restart_always,
        begun=container.step is not Step.WAITING,
        started=container.has_started,
        done=container.is_done,
        failed=container.is_done and container.exit_code != 0,
    )


def program_argv() -> tuple[str, ...]:
    """argv that runs this program again, on a node that sees the same file systems."""
    return (sys.executable, "-I", "-S", os.path.realpath(sys.argv[0]))
