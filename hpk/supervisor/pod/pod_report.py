"""What is said of the pod: the record that everybody outside believes, put down at each change.

The loop's thread alone calls this. Decides nothing about the pod.
"""

from __future__ import annotations

import time
from typing import Callable, Optional

from hpk.model.record import (
    RECORD_VERSION,
    ContainerEvent,
    ContainerRecord,
    PodPhase,
    StopCause,
    SupervisorRecord,
)
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Step
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.pod import unfinished
from hpk.supervisor.pod.event_notes import Notes
from hpk.supervisor.pod.pod_containers import PodContainers
from hpk.supervisor.pod.preparing import Identity
from hpk.supervisor.pod.records import RecordStore

_SHORT_SYNC_S = 30.0
_KNOWN_SYNC_S = 5.0
_UNKNOWN_SYNC_S = 900.0
_LOOK_S = 0.5


def final_patience_s(cause: StopCause, *, is_known: bool, has_place: bool) -> float:
    """How long to wait until the last record is on the disk, in seconds.

    Where nobody knows of the pod's end it would be lost with this process: a home that was full for
    a while has cost a pod its end, whose kubelet was away just then.

    :param is_known: the kubelet has it where it outlives the kubelet.
    :param has_place: its directory is there; the kubelet removes that of a Pod that was deleted.
    """
    if is_known:
        return _KNOWN_SYNC_S
    is_hurried = cause is StopCause.SIGNALLED or not has_place
    return _SHORT_SYNC_S if is_hurried else _UNKNOWN_SYNC_S


class Report:
    """See the module's docstring.

    :param host: Slurm's name of this node; ``host_ip`` tells its address as of now.
    """

    def __init__(
        self,
        identity: Identity,
        store: RecordStore,
        host: str,
        host_ip: Callable[[], str],
        network: PodNetwork,
        channel_port: Callable[[], int],
    ) -> None:
        self.phase = PodPhase.STARTING
        self.cause: Optional[StopCause] = None
        self.message = ""
        self.containers: Optional[PodContainers] = None
        """None until they were made."""
        self.seq = 0
        self._me = identity
        self._store = store
        self._host = host
        self._host_ip = host_ip
        self._network = network
        self._channel_port = channel_port
        self._notes = Notes()
        self._started_at_s = time.time()
        self._failed: tuple[ContainerRecord, ...] = ()
        self._failed_inits: tuple[ContainerRecord, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether HPK itself was at fault; the containers' own ends count no more."""
        return bool(self._failed)

    def changed(self) -> None:
        """Put a new record down."""
        made = self.containers
        if self.phase is PodPhase.STARTING and made is not None and made.is_any(Step.RUNNING):
            self.phase = PodPhase.RUNNING
        self.seq += 1
        self._store.put(self._record())

    def note(self, container: str, reason: str, message: str, *, is_warning: bool) -> None:
        """See hpk.supervisor.base.loop.Loop.note."""
        now_s = time.time()
        log("note", container=container, reason=reason)
        event = ContainerEvent(container, is_warning, reason, message, 1, now_s, now_s)
        if self._notes.add(event):
            self.changed()

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        due_s = self._notes.due_in_s(time.time())
        times = (self._store.wake_mono_s, None if due_s is None else time.monotonic() + due_s)
        return min((item for item in times if item is not None), default=None)

    def tick(self) -> None:
        """Tell what has waited to be told."""
        self._store.tick()
        if self._notes.is_overdue(time.time()):
            self.changed()

    def fail_setup(self, why: str) -> None:
        """Nothing could be started."""
        log("cannot set the pod up", why=why)
        self.cause, self.message = StopCause.SETUP_FAILED, why
        layout, plan = self._me.layout, self._me.spec.plan
        self._failed = unfinished.not_started(layout, plan.containers, why)
        self._failed_inits = unfinished.not_started(layout, plan.init_containers, why)

    def fail(self, error: Exception) -> None:
        """The supervisor failed, by an error that is being handled."""
        import traceback  # a twentieth of a start, and hardly ever needed

        log("the supervisor failed", trace=traceback.format_exc())
        why = f"the supervisor failed: {type(error).__name__}: {error}"
        self.cause = self.cause or StopCause.SETUP_FAILED
        self.message = self.message or why
        layout, plan, made = self._me.layout, self._me.spec.plan, self.containers
        records = made.records if made is not None else ()
        inits = made.init_records if made is not None else ()
        self._failed = self._failed or unfinished.cut_off(layout, plan.containers, records, why)
        self._failed_inits = self._failed_inits or unfinished.cut_off(
            layout, plan.init_containers, inits, why
        )

    def finish(self, pause: Callable[[float], None], is_known: Callable[[int], bool]) -> StopCause:
        """Put the last record down and wait for it; what ended the pod.

        :param pause: waits so many seconds or until something has happened.
        :param is_known: whether what the record of a seq says outlives the kubelet; then a disk
            that takes none is not waited for so long.
        """
        self.phase = PodPhase.FINISHED
        self.cause = self.cause or StopCause.COMPLETED
        self.changed()
        began = time.monotonic()
        while self._store.written_seq < self.seq:
            now = time.monotonic()
            patience_s = final_patience_s(
                self.cause, is_known=is_known(self.seq), has_place=self._store.has_place
            )
            until = began + patience_s
            if now >= until:
                log("the final record is not on the disk")
                break
            wake = self._store.wake_mono_s
            pause(max(0.0, min(until, now + _LOOK_S, until if wake is None else wake) - now))
            self._store.tick()
        return self.cause

    def _record(self) -> SupervisorRecord:
        made = self.containers
        return SupervisorRecord(
            version=RECORD_VERSION,
            uid=self._me.spec.plan.pod.uid,
            nonce=self._me.spec.nonce,
            job_id=self._me.job_id,
            seq=self.seq,
            phase=self.phase,
            host=self._host,
            host_ip=self._host_ip(),
            pod_ips=self._network.addresses,
            started_at_s=self._started_at_s,
            containers=self._failed or (made.records if made is not None else ()),
            finished_at_s=time.time() if self.phase is PodPhase.FINISHED else None,
            stop_cause=self.cause,
            message=self.message,
            init_containers=self._failed_inits or (made.init_records if made is not None else ()),
            events=self._notes.tell(time.time()),
            ephemeral_containers=made.ephemeral_records if made is not None else (),
            channel_port=self._channel_port(),
        )
