"""How one start of a container is brought to its end: preStop, the stop signal, SIGKILL.

Source: kubernetes pkg/kubelet/kuberuntime/kuberuntime_container.go (killContainer).
"""

from __future__ import annotations

import os
import signal
import time
from typing import Optional

from hpk.model.plan import ContainerPlan
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.container import start_orders
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.probes.exec_check import RunMessage
from hpk.supervisor.probes.hooks import Hook
from hpk.supervisor.process import pod_messages
from hpk.supervisor.ranks import rank_files

_SRUN_END_TIMEOUT_S = 10.0
_STEP_ID_S = 5.0
_LEAST_GRACE_S = 2.0
"""What a container has between the two signals, however little of the grace period is left."""


class Stopping:
    """See the module's docstring; made with the start, idle until it is to end.

    :param number: of the start.
    """

    def __init__(
        self,
        plan: ContainerPlan,
        pod: PodContext,
        loop: Loop,
        number: int,
        run_id: int,
        run_message: RunMessage,
    ) -> None:
        self._plan = plan
        self._pod = pod
        self._loop = loop
        self._number = number
        self._run_id = run_id
        self._run_message = run_message
        self._hook: Optional[Hook] = None
        self._has_hooked = False
        self._is_terminating = False
        self._was_signalled = False
        self._is_killed = False
        self._kill_mono_s: Optional[float] = None
        self._srun_mono_s: Optional[float] = None
        self._started_mono_s = time.monotonic()
        self._later: Optional[tuple[float, int]] = None

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        times = [self._kill_mono_s, self._srun_mono_s, self._later[0] if self._later else None]
        times.append(self._hook.wake_mono_s if self._hook else None)
        return min((item for item in times if item is not None), default=None)

    def prepare(self) -> None:
        """Run the preStop hook, if there is one, once."""
        handler = self._plan.lifecycle.pre_stop
        if handler is None or self._has_hooked:
            return
        self._has_hooked = True
        self._hook = Hook(
            "preStop", self._plan.name, handler, self._loop, self._run_message, self._on_hook
        )

    def terminate(self) -> None:
        """Send the stop signal, when the preStop hook has ended."""
        self._is_terminating = True
        if self._hook is None and not self._was_signalled:
            self._was_signalled = True
            self.signal(self._stop_signal())

    def end_within(self, grace_s: int) -> None:
        """All of it, on the container's own account."""
        if grace_s > 0:
            self.prepare()
        self._kill_mono_s = time.monotonic() + max(grace_s, _LEAST_GRACE_S)
        self.terminate()

    def kill(self, *, at_once: bool) -> None:
        """The grace period is over.

        :param at_once: not even what upstream leaves a container that has had no signal yet.
        """
        if self._hook is not None:
            self._hook.cancel()
            self._hook = None
        if at_once or self._was_signalled:
            self._kill_mono_s, self._is_killed = None, True
            self.signal(signal.SIGKILL)
        else:
            self._kill_mono_s = time.monotonic() + _LEAST_GRACE_S
            self.terminate()

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        now = time.monotonic()
        if self._hook is not None:
            self._hook.tick()
        if self._kill_mono_s is not None and now >= self._kill_mono_s:
            self.kill(at_once=False)
        if self._srun_mono_s is not None and now >= self._srun_mono_s:
            self._srun_mono_s = None
            if self._is_killed:
                self._loop.command(pod_messages.Signal(self._run_id, signal.SIGKILL))

        if self._later is not None and now >= self._later[0]:
            _, number = self._later
            self._later = None
            self.signal_as_process_1(number)

    def end(self) -> None:
        """The container has ended."""
        if self._hook is not None:
            self._hook.cancel()
        self._hook = self._kill_mono_s = self._srun_mono_s = self._later = None

    def _on_hook(self, went_well: bool) -> None:
        self._hook = None
        if not went_well:
            self._loop.note(
                self._plan.name, "FailedPreStopHook", "PreStopHook failed", is_warning=True
            )
        if self._is_terminating:
            self.terminate()

    def _stop_signal(self) -> int:
        if self._plan.mpi is not None:
            return signal.SIGTERM
        return start_orders.stop_signal(self._plan.image.config.stop_signal)

    def signal(self, number: int) -> None:
        """Signal the container's main process; in an MPI run every rank."""
        if self._plan.mpi is None:
            self._loop.command(pod_messages.Signal(self._run_id, number))
            return
        layout, name, start = self._pod.layout, self._plan.name, self._number
        self._loop.ask_files(
            lambda: rank_files.step_id(layout, name, start),
            lambda step: self._signal_ranks(step, number),
            instead="",
            timeout_s=_STEP_ID_S,
        )

    def _signal_ranks(self, step: str, number: int) -> None:
        if step:
            self._signal_step(step, number)
        if not step or number == signal.SIGKILL:
            # srun ends its step with SIGKILL when it is told to terminate.
            self._loop.command(pod_messages.Signal(self._run_id, signal.SIGTERM))
            self._srun_mono_s = time.monotonic() + _SRUN_END_TIMEOUT_S

    def signal_as_process_1(self, number: int, not_before_s: int = 0) -> None:
        """The same as somebody in the container would, to whom the main process is process 1; the
        ranks of an MPI run are nobody's process 1.

        :param not_before_s: see hpk.model.frames.SignalContainer; of several signals that wait the
            last counts.
        """
        at_mono_s = self._started_mono_s + not_before_s
        if time.monotonic() < at_mono_s:
            self._later = at_mono_s, number
        elif self._plan.mpi is None:
            self._loop.command(pod_messages.Signal(self._run_id, number, as_process_1=True))
        else:
            self.signal(number)

    def _signal_step(self, step: str, number: int) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            message = start_orders.step_signal_message(self._pod, step, number, self._loop.new_id())
            self._loop.command(message, (null, null, null))
        finally:
            os.close(null)
