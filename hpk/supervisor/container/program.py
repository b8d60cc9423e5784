"""The Pod's program in one start of its container: what it is begun with, what it writes, who else
runs something beside it or is attached to it, and how it is brought to its end.

When it is begun, and what follows from what becomes of it, is hpk.supervisor.container.start's.
"""

from __future__ import annotations

import os
from typing import Callable, Optional, Union

from hpk.model.bundle import Bundle
from hpk.model.frames import AttachOpen, ExecOpen
from hpk.model.plan import ContainerPlan
from hpk.supervisor.base.loop import Listener, Loop
from hpk.supervisor.base.streams import Session, StreamTable
from hpk.supervisor.container import start_orders
from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.mpi_ranks import MpiRanks
from hpk.supervisor.container.output import Output
from hpk.supervisor.container.program_io import ProgramIo
from hpk.supervisor.container.sessions import Sessions
from hpk.supervisor.container.start_orders import PodContext, RankFailures
from hpk.supervisor.container.stopping import Stopping
from hpk.supervisor.process import pod_messages


class Program:
    """See the module's docstring; of an MPI run it is the launcher, and its ranks.

    :param number: of the start.
    """

    def __init__(self, plan: ContainerPlan, pod: PodContext, loop: Loop, number: int) -> None:
        self._plan = plan
        self._pod = pod
        self._loop = loop
        self._number = number
        self._run: Optional[pod_messages.Run] = None
        self._io: Optional[ProgramIo] = None
        self._ranks: Optional[MpiRanks] = None
        self._sessions = Sessions(loop)
        self._failures = RankFailures(plan.mpi) if plan.mpi else None
        self.stopping: Optional[Stopping] = None
        """None before `start`."""

    @property
    def has_entered(self) -> bool:
        """Whether podinit was told to start it."""
        return self.stopping is not None

    @property
    def output(self) -> Optional[Output]:
        """None before `start`."""
        return self._io.output if self._io else None

    @property
    def first_failure(self) -> int:
        """Exit code of the rank that failed first, 0 where there is none."""
        return self._failures.exit_code if self._failures else 0

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        parts = (self.output, self.stopping)
        times = (part.wake_mono_s for part in parts if part is not None)
        return min((item for item in times if item is not None), default=None)

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        if self._io is not None:
            self._io.output.tick()
        if self.stopping is not None:
            self.stopping.tick()

    def start(
        self,
        bundle: Bundle,
        hold_id: int,
        writer: LogWriter,
        on_event: Listener,
        on_output_end: Callable[[], None],
    ) -> None:
        """Have podinit start it.

        :param hold_id: of the container that is held open for it.
        :param writer: of its log.
        :param on_event: told what podinit says of it.
        """
        plan, pod, number = self._plan, self._pod, self._number
        on_errors = self._failures.feed if self._failures else None
        self._io = ProgramIo(plan, self._loop, writer, on_errors, on_output_end)
        run_id = self._loop.new_id(on_event)
        stopping = Stopping(plan, pod, self._loop, number, run_id, self.exec_message)
        self.stopping = stopping
        fds = self._io.open(bundle)
        try:
            if plan.mpi is not None:
                self._ranks = MpiRanks(plan, pod, number, bundle, stopping.signal_as_process_1)
                message = start_orders.mpi_message(pod, plan, plan.mpi, run_id, number)
            else:
                message = start_orders.run_message(pod, plan, bundle, run_id, hold_id)
                self._run = message
            self._loop.command(message, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def started(self) -> None:
        """It runs."""
        if self._io is not None:
            self._io.started()

    def exec_message(self, command: tuple[str, ...], run_id: int) -> pod_messages.Run:
        """A probe's or a hook's command, in the running container: in the environment that its
        program began with, whatever has become of the ConfigMaps since."""
        if self._run is None:
            raise AssertionError("no command runs in a container before its program")
        return start_orders.with_command(self._run, command, run_id)

    def open_session(
        self,
        frame: Union[ExecOpen, AttachOpen],
        table: StreamTable,
        on_end: Callable[[], None],
    ) -> Optional[Session]:
        """See hpk.supervisor.container.start.ContainerStart.open_session."""
        if self._io is None:
            return None
        if isinstance(frame, AttachOpen):
            return self._sessions.attach(frame, table, self._io, on_end)
        if self._ranks is not None:
            return self._sessions.exec_beside_ranks(frame, table, self._ranks, on_end)
        return self._sessions.exec(frame, table, self._session_message, on_end)

    def _session_message(self, frame: ExecOpen, run_id: int) -> pod_messages.Run:
        return start_orders.exec_message(self.exec_message(frame.command, run_id), frame)

    def ended(self) -> None:
        """It has ended; its output may not have."""
        if self.stopping is not None:
            self.stopping.end()
        if self._io is not None:
            self._io.end()

    def drained(self) -> None:
        """All its output was read: nobody is left there."""
        self._sessions.end()
        if self._io is not None:
            self._io.close()

    def lost(self, why: str) -> None:
        """podinit is gone, and nobody will tell more of what ran there."""
        self._sessions.end(lost=why)
