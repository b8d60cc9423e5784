"""exec and attach: each to the container that it names, of whatever kind that is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable, Optional, Union

from hpk.model.frames import AttachOpen, ExecOpen, StreamClosed, StreamError, StreamResize
from hpk.supervisor.base.streams import Session, StreamTable
from hpk.supervisor.container.container import Container


class ContainerStreams:
    """See the module's docstring. Of the loop's thread.

    :param containers: those of the pod, by now.
    """

    def __init__(self, table: StreamTable, containers: Callable[[], Iterable[Container]]) -> None:
        self._table = table
        self._containers = containers
        self._sessions: dict[int, Optional[Session]] = {}
        """None: it is being opened."""

    def open(self, frame: Union[ExecOpen, AttachOpen]) -> None:
        """Begin it, or say why not."""
        self._sessions[frame.id] = None
        session = self._open(frame)
        if session is None:
            self._sessions.pop(frame.id, None)
            # As upstream's kubelet says it (pkg/kubelet/kubelet_pods.go, RunInContainer's kin).
            why = f'container not found ("{frame.container}")'
            self._table.finish(StreamClosed(frame.id, error=StreamError.NOT_FOUND, message=why))
        elif frame.id in self._sessions:
            self._sessions[frame.id] = session

    def _open(self, frame: Union[ExecOpen, AttachOpen]) -> Optional[Session]:
        for container in self._containers():
            if container.plan.name == frame.container:
                return container.open_session(frame, self._table, lambda: self._forget(frame.id))
        return None

    def _forget(self, stream: int) -> None:
        self._sessions.pop(stream, None)

    def resize(self, frame: StreamResize) -> None:
        """The client's terminal has another size."""
        session = self._sessions.get(frame.id)
        if session is not None:
            session.resize(frame.size)

    def hang_up(self, stream: int) -> None:
        """See hpk.supervisor.base.streams.HangUp."""
        session = self._sessions.get(stream)
        if session is not None:
            session.hang_up()
