"""Those who exec in a container or are attached to it, of one start."""

from __future__ import annotations

from typing import Callable, Union

from hpk.model.frames import AttachOpen, ExecOpen
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.base.streams import Session, StreamTable
from hpk.supervisor.container.attach_session import AttachSession
from hpk.supervisor.container.exec_session import ExecMessage, ExecSession
from hpk.supervisor.container.program_io import ProgramIo


class Sessions:
    """See the module's docstring."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
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
