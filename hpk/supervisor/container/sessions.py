"""Those who exec in a container or are attached to it, of one start."""

from __future__ import annotations

from functools import partial
from typing import Callable, Protocol, Union

from hpk.model.frames import AttachOpen, ExecOpen
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.base.streams import Session, StreamTable
from hpk.supervisor.container.attach_session import AttachSession
from hpk.supervisor.container.exec_session import ExecMessage, ExecSession
from hpk.supervisor.container.program_io import ProgramIo
from hpk.supervisor.container.signals_to_ranks import SignalsToRanks
from hpk.supervisor.process import pod_messages

_STEP_S = 5.0


class Ranks(Protocol):
    """An MPI run, whose first rank's node is this one."""

    def step_id(self) -> str:
        """The run's step, "" before it has begun. Reads the shared file system."""

    def message(self, step: str, frame: ExecOpen, run_id: int) -> pod_messages.Run:
        """What podinit is to be told.

        :raises OSError, ValueError: the ranks' container is not there.
        """

    def signal(self, number: int) -> None:
        """Signal all of them."""


class Sessions:
    """See the module's docstring."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._signals: list[SignalsToRanks] = []
        self._all: list[Union[ExecSession, AttachSession]] = []

    def exec(
        self,
        frame: ExecOpen,
        table: StreamTable,
        message: ExecMessage,
        on_end: Callable[[], None],
    ) -> Session:
        """Begin one.

        :param on_end: called once, when its last word is said.
        """
        session = ExecSession(frame, table, self._loop, lambda: self._forget(session, on_end))
        self._all.append(session)
        session.begin(message)
        return session

    def exec_beside_ranks(
        self,
        frame: ExecOpen,
        table: StreamTable,
        ranks: Ranks,
        on_end: Callable[[], None],
    ) -> Session:
        """Begin one in the container of an MPI run; see `exec`."""
        session = ExecSession(frame, table, self._loop, lambda: self._forget(session, on_end))
        self._all.append(session)

        def begin(step: str) -> None:
            if frame.rank > 0 or frame.node:
                session.refuse("only the container of the first rank can be entered")
            elif not step:
                session.refuse("the run has not begun yet")
            else:
                signals = SignalsToRanks(self._loop, ranks.signal)
                session.begin(partial(ranks.message, step), signals)
                self._signals = [one for one in (*self._signals, signals) if one.is_open]

        self._loop.ask_files(ranks.step_id, begin, instead="", timeout_s=_STEP_S)
        return session

    def attach(
        self,
        frame: AttachOpen,
        table: StreamTable,
        program: ProgramIo,
        on_end: Callable[[], None],
    ) -> Session:
        """Begin one; see `exec`."""
        session = AttachSession(frame, table, program, lambda: self._forget(session, on_end))
        self._all.append(session)
        session.begin()
        return session

    def _forget(
        self, session: Union[ExecSession, AttachSession], on_end: Callable[[], None]
    ) -> None:
        self._all.remove(session)
        on_end()

    def end(self, *, lost: str = "") -> None:
        """The container has ended.

        :param lost: why nobody will tell more of its programs, "" where that was in order.
        """
        for session in tuple(self._all):
            session.end(lost=lost)
        for signals in self._signals:
            signals.close()
        self._signals = []
