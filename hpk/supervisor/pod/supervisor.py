"""The pod's life: one loop that starts, watches, restarts and stops the containers.

The loop's thread alone changes state. Disk, network and log writing are other threads, which post
events to it; processes are podinit's; what is said of it is hpk.supervisor.pod.pod_report's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from functools import partial
from typing import Any, Callable, Optional

from hpk.model import frames
from hpk.model.bundle import Bundle
from hpk.model.errors import HpkError, ParseError
from hpk.model.record import PodPhase, StopCause
from hpk.supervisor.base.event_loop import EventLoop
from hpk.supervisor.base.job_log import add, log, log_through
from hpk.supervisor.base.loop import Listener, Step, T
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.base.shared_files import SharedFiles
from hpk.supervisor.inside import mounts, node
from hpk.supervisor.inside.environment import with_api_port
from hpk.supervisor.inside.localdir import (
    LocalDirs,
    make_local_dirs,
    node_roots,
    sweep_local_dirs,
)
from hpk.supervisor.inside.pod_volumes import PodVolumes, pod_dirs, spans_nodes
from hpk.supervisor.inside.size_limits import watch_size_limits
from hpk.supervisor.link import forwarder
from hpk.supervisor.link.channel import Channel, ChannelConfig
from hpk.supervisor.link.control_plane import ControlPlane
from hpk.supervisor.link.host_network import HostNetwork
from hpk.supervisor.pod.pod_containers import NO_MORE, PodContainers
from hpk.supervisor.pod.pod_report import Report
from hpk.supervisor.pod.preparing import Identity, find_tools, pod_context
from hpk.supervisor.pod.reasons_to_stop import ReasonsToStop
from hpk.supervisor.pod.records import RecordStore
from hpk.supervisor.pod.streams import PodStreams
from hpk.supervisor.process import pod_messages
from hpk.supervisor.process.inits import Init, Inits

_SWEEP_S = 5.0
_END_MARGIN_S = 3
"""What of Slurm's KillWait the supervisor keeps for itself: to record the end and to clear up."""
_EVICTED_GRACE_S = 1
_FINAL_ACK_S = 5.0
_FINAL_READERS_S = 10.0
_PODINIT_END_S = 10.0
_REMOVE_S = 60.0
_LAST_LINES_S = 2.0


class Supervisor:
    """Runs one pod to its end. `run` returns the exit code for Slurm.

    :param said_fd: see hpk.supervisor.base.job_log.divert.
    """

    def __init__(self, identity: Identity, inits: Inits, said_fd: int) -> None:
        self._me = identity
        self._plan = identity.spec.plan
        self._inits = inits
        self._said_fd = said_fd
        self._loop = EventLoop()
        self._last_id = 0
        self._listeners: dict[int, Listener] = {}
        self._containers: Optional[PodContainers] = None
        self._volumes: Optional[PodVolumes] = None
        self._dirs: Optional[LocalDirs] = None
        self._api_port = 0
        self._rejection = ""
        self._has_bundle = False
        self._kill_mono_s: Optional[float] = None
        self._has_grace = True
        self._started_mono_s = time.monotonic()
        self._host = node.host_name(identity.env)
        self._roots = node_roots(identity.layout, identity.spec.settings.local_root, identity.env)
        self._sweep = threading.Thread(
            target=sweep_local_dirs, args=(self._roots,), name="sweep", daemon=True
        )
        self._files = SharedFiles(self._loop.post)
        self._control_plane = ControlPlane(identity.spec.settings.endpoint_path, self._files)
        self._reasons_to_stop = ReasonsToStop(
            identity.spec, identity.layout, self._started_mono_s, self
        )
        self._channel = Channel(
            ChannelConfig(
                spec=identity.spec,
                job_id=identity.job_id,
                token_path=identity.layout.token,
                control_plane=self._control_plane,
                files=self._files,
                log_end=self._log_end,
                read_log=self._read_log,
                on_frame=lambda frame: self._loop.post(lambda: self._on_frame(frame)),
                post=self._loop.post,
                on_hang_up=self._on_hang_up,
                on_port=self.changed,
            )
        )
        store = RecordStore(
            identity.layout.record, self._files, self._channel.publish, self._loop.wake
        )
        self.network: PodNetwork = HostNetwork(self._host_ip)
        self._report = Report(
            identity,
            store,
            self._host,
            self._host_ip,
            self.network,
            channel_port=lambda: self._channel.port,
        )
        self._streams = PodStreams(
            self, self._channel.streams, self._plan.pod, lambda: self._containers or ()
        )

    # The loop.

    def run(self) -> int:
        """To the end of the pod; the exit code for Slurm."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._loop.post(self._on_signal))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log_through(lambda work: self._files.put("job log", work))
        with contextlib.suppress(OSError, HpkError):
            self._control_plane.endpoint()
        for init in self._inits.all:
            self._loop.watch(init.socket.fileno(), partial(self._on_init, init))
        self._loop.watch(self._said_fd, self._take_said)
        self._channel.start()
        try:
            self._live()
        except Exception as error:  # whatever it is, the pod must not end without a record
            self._report.fail(error)
        return self._finish()

    def _live(self) -> None:
        try:
            self._prepare()
        except (HpkError, OSError) as error:
            self._report.fail_setup(str(error))
        while not self._is_over:
            self._turn()

    def _turn(self) -> None:
        self._loop.turn(self._timeout())
        for container in self._containers or ():
            container.tick()
        self._advance()
        self._files.tick()
        self._report.tick()
        for reason in self._reasons_to_stop.tick(is_welcome=self._channel.is_welcome):
            self._stop(reason.cause, reason.grace_period_s, reason.message)
        if self._kill_mono_s is not None and time.monotonic() >= self._kill_mono_s:
            self._kill_mono_s = None
            log("grace period over, kill")
            if self._containers is not None:
                at_once = self._report.cause is StopCause.SIGNALLED or not self._has_grace
                self._containers.kill(at_once=at_once)

    def _timeout(self) -> float:
        times = [self._reasons_to_stop.wake_mono_s, self._kill_mono_s]
        times += [self._files.wake_mono_s, self._report.wake_mono_s]
        times.append(self._containers.wake_mono_s if self._containers is not None else None)
        return max(0.0, min(t for t in times if t is not None) - time.monotonic())

    @property
    def _is_over(self) -> bool:
        if self._report.has_failed:
            return True
        return self._containers is not None and self._containers.is_over

    def _advance(self) -> None:
        if self._report.has_failed or self._containers is None:
            return
        if self._report.phase is not PodPhase.STOPPING:
            self._containers.begin_next()
        begins = self._containers.leave()
        if begins and self._kill_mono_s is None and self._report.phase is not PodPhase.STOPPING:
            self._kill_mono_s = time.monotonic() + self._plan.grace_period_s

    # What containers ask (hpk.supervisor.base.loop.Loop).

    def command(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """See Loop.command."""
        self._inits.send(message, fds)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """See hpk.supervisor.base.loop.Watcher."""
        self._loop.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """See hpk.supervisor.base.loop.Watcher."""
        self._loop.unwatch(fd)

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """See Loop.in_thread."""
        self._loop.in_thread(work, then)

    def ask_files(
        self, work: Callable[[], T], then: Callable[[T], None], *, instead: T, timeout_s: float
    ) -> None:
        """See Loop.ask_files."""
        self._files.ask(work, then, instead=instead, timeout_s=timeout_s)

    def post(self, event: Callable[[], None]) -> None:
        """See Loop.post."""
        self._loop.post(event)

    def log_grew(self) -> None:
        """See Loop.log_grew."""
        self._channel.wake()
        if self._containers is not None and self._containers.is_any(Step.DRAINING):
            self._loop.post(self._on_log_written)

    def new_id(self, listener: Optional[Listener] = None) -> int:
        """See Loop.new_id."""
        self._last_id += 1
        if listener is not None:
            self._listeners[self._last_id] = listener
        return self._last_id

    def note(self, container: str, reason: str, message: str, *, is_warning: bool) -> None:
        """See Loop.note."""
        self._report.note(container, reason, message, is_warning=is_warning)

    def _host_ip(self) -> str:
        towards = self._channel.host_address or self._control_plane.address
        return node.address_towards(towards, self._host)

    def changed(self) -> None:
        """See Loop.changed."""
        self._report.changed()

    def _on_log_written(self) -> None:
        for container in self._containers or ():
            container.log_written()

    def _take_said(self) -> None:
        """What podinit and the like have written to standard error."""
        with contextlib.suppress(BlockingIOError):
            add(os.read(self._said_fd, 65536))

    # Starting.

    def _prepare(self) -> None:
        spec, plan = self._me.spec, self._plan
        tools = find_tools(self._me)
        dirs = make_local_dirs(self._roots, str(self._me.job_id))
        self._dirs = dirs
        mounts.write_node_files(dirs.work, plan, self.network.addresses[0])
        self._forward()
        volumes = PodVolumes(spec, pod_dirs(self._me.layout, dirs, self._me.env), self._roots)
        self._volumes = volumes
        volumes.prepare()
        watch_size_limits(
            {volumes.empty_dir(item): item for item in plan.empty_dirs},
            lambda message: self._loop.post(lambda: self._evict(message)),
        )
        pod = pod_context(self._me, tools, dirs, volumes, self._started_mono_s)
        self._containers = self._report.containers = PodContainers(plan, pod, self)
        self._advance()
        self.changed()
        # Beside what starts, which waits for no removal of what others have left.
        self._sweep.start()

    def _forward(self) -> None:
        listener = self.network.listen()
        self._api_port = forwarder.port_of(listener)
        forwarder.Forwarder(listener, self._control_plane).start()

    # What others say.

    def _on_init(self, init: Init) -> None:
        received = pod_messages.receive(init.socket)
        if received is None:
            self._loop.unwatch(init.socket.fileno())
            self._on_init_lost(init)
            return
        event, _ = received
        if isinstance(event, pod_messages.Ready):
            if event.message:
                self._report.fail_setup(event.message)
            return
        listener = self._listeners.get(event.id)
        if isinstance(event, (pod_messages.Exited, pod_messages.NotStarted, pod_messages.Closed)):
            self._listeners.pop(event.id, None)
        if listener is not None:
            listener(event)

    def _on_init_lost(self, init: Init) -> None:
        """podinit was killed, and the kernel has killed everything below with it."""
        if self._is_over:
            return
        log("podinit has ended, and with it the pod's processes")
        if self._containers is not None:
            self._containers.lost(is_host=init.is_host)

    def _on_frame(self, frame: Any) -> None:
        # Without its first bundle no container ever starts, and only an end of the pod would tell.
        is_vital = isinstance(frame, frames.BundleReply) and not self._has_bundle
        try:
            self._take_frame(frame)
        except Exception:  # whatever it asks for, the pod's containers must outlive it
            if is_vital:
                raise
            import traceback

            log(
                "cannot do what was asked", frame=type(frame).__name__, trace=traceback.format_exc()
            )

    def _take_frame(self, frame: Any) -> None:
        if isinstance(frame, frames.Welcome):
            log("channel: welcome")
            self._reasons_to_stop.welcome()
            if not self._has_bundle:
                self._channel.send(frames.BundleRequest(id=self.new_id()))
        elif isinstance(frame, frames.BundleReply):
            self._on_bundle(frame.bundle)
        elif isinstance(frame, frames.Stop):
            self._stop(StopCause.REQUESTED, frame.grace_period_s)
        elif isinstance(frame, frames.SignalContainer):
            self._signal_container(frame)
        elif isinstance(frame, frames.PodUpdate):
            self._update(frame)
        elif isinstance(frame, frames.Reject):
            if frame.reason != self._rejection:  # it is tried again for as long as the pod lives
                log("channel: rejected", reason=frame.reason, stop=frame.stop)
            self._rejection = frame.reason
            if frame.stop:
                self._stop(StopCause.REQUESTED, self._plan.grace_period_s)
        else:
            self._streams.take(frame)

    def _on_hang_up(self, stream: int) -> None:
        self._streams.hang_up(stream)

    def _signal_container(self, frame: frames.SignalContainer) -> None:
        log("signal a container", container=frame.container, number=frame.number)
        for container in self._containers or ():
            if container.plan.name == frame.container and 0 < frame.number < signal.NSIG:
                container.signal_as_process_1(frame.number, frame.not_before_s)

    def _update(self, frame: frames.PodUpdate) -> None:
        self._reasons_to_stop.set_deadline(frame.active_deadline_s)
        if self._containers is not None and self._report.phase is not PodPhase.STOPPING:
            self._containers.add(frame.ephemeral_containers)

    def _on_bundle(self, bundle: Bundle) -> None:
        if self._volumes is None or self._report.has_failed:
            return
        try:
            self._volumes.write(bundle)
        except (OSError, ParseError) as error:
            log("cannot write the bundle", error=error)
            if not self._has_bundle:
                why = f"cannot write the pod's volumes: {error}"
                self._stop(StopCause.SETUP_FAILED, 0, why)
            return
        self._has_bundle = True
        self._reasons_to_stop.begin()
        if self._containers is not None:
            # Each node of an MPI run has a port of its own.
            self._containers.give_bundle(bundle, with_api_port(bundle, self._api_port))

    def _on_signal(self) -> None:
        allowed_s = max(1, self._me.spec.settings.kill_wait_s - _END_MARGIN_S)
        grace_s = min(self._plan.grace_period_s, allowed_s)
        self._stop(StopCause.SIGNALLED, grace_s)

    def _evict(self, why: str) -> None:
        if not self._is_over:
            grace_s = min(_EVICTED_GRACE_S, self._plan.grace_period_s)
            self._stop(StopCause.EVICTED, grace_s, why)

    def _stop(self, cause: StopCause, grace_s: int, message: str = "") -> None:
        """Stop the pod; what stopped it first stays the cause, a shorter grace wins.

        Sidecars are stopped when all others have ended.
        """
        kill_mono_s = time.monotonic() + max(0, grace_s)
        if self._kill_mono_s is not None:
            kill_mono_s = min(self._kill_mono_s, kill_mono_s)
        if self._report.phase is PodPhase.STOPPING:
            self._has_grace = self._has_grace and grace_s > 0
            if self._kill_mono_s is not None:
                self._kill_mono_s = kill_mono_s
            return
        if self._is_over:
            return
        log("stop the pod", cause=cause.value, grace_s=grace_s)
        said = self._report
        said.cause, said.phase, said.message = cause, PodPhase.STOPPING, message or said.message
        self._kill_mono_s = kill_mono_s
        self._has_grace = grace_s > 0
        self.changed()
        if self._containers is not None:
            self._containers.stop(with_hook=self._has_grace)
        self._advance()

    def _log_end(self, path: str) -> int:
        """Called by the channel's thread."""
        return NO_MORE if self._containers is None else self._containers.log_end(path)

    def _read_log(self, path: str, offset: int, limit: int) -> tuple[int, bytes, bool]:
        """Called where the shared file system may be read."""
        if self._containers is None:
            raise ParseError(f"{path!r} is no log of this pod")
        return self._containers.read_log(path, offset, limit)

    # Ending.

    def _finish(self) -> int:
        cause = self._report.finish(self._loop.pause, lambda seq: self._channel.kept_seq >= seq)
        for init in self._inits.all:
            with contextlib.suppress(ValueError):  # closed already
                self._loop.unwatch(init.socket.fileno())
        self._inits.end(_PODINIT_END_S)
        self._streams.end()
        # Before any waiting: where Slurm is ending the job it may kill us at any moment.
        if self._volumes is not None and spans_nodes(self._me.env):
            with contextlib.suppress(OSError):
                self._files.wait(self._volumes.remove_shared, _REMOVE_S)
        if self._dirs is not None:
            self._dirs.remove()
            if self._sweep.ident is not None:
                self._sweep.join(_SWEEP_S)
            sweep_local_dirs(self._roots)
        self._wait_for_kubelet()
        self._channel.close(1.0)
        code = 1
        if self._containers is not None and not self._report.has_failed:
            code = self._containers.exit_code
        self._take_said()
        log("pod finished", cause=cause.value, code=code)
        if self._files.finish(_LAST_LINES_S):
            log_through(None)
        return code

    def _wait_for_kubelet(self) -> None:
        """Give the kubelet the last record, and readers the rest of the logs."""
        ack_deadline = time.monotonic() + _FINAL_ACK_S
        read_deadline = time.monotonic() + _FINAL_READERS_S
        while self._channel.is_welcome:
            now = time.monotonic()
            acked = self._channel.acked_seq >= self._report.seq
            if (acked or now > ack_deadline) and (self._channel.is_idle or now > read_deadline):
                return
            self._loop.pause(0.05)
