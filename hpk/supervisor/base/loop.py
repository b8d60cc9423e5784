"""What the parts of a pod ask of the supervisor's loop. The loop's thread alone calls them."""

from __future__ import annotations

from enum import Enum
from typing import Any, Callable, Optional, Protocol, TypeVar

from hpk.supervisor.base.pod_network import PodNetwork

T = TypeVar("T")
Listener = Callable[[Any], None]
"""Takes what podinit reports (hpk.supervisor.process.pod_messages)."""


class Step(Enum):
    """Where a container is."""

    WAITING = 0
    """Not its turn yet."""
    PREPARING = 1
    RUNNING = 2
    DRAINING = 3
    BACKOFF = 4
    DONE = 5


class Watcher(Protocol):
    """The part of the supervisor's loop that looks at descriptors."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever the descriptor is readable, until `unwatch`."""

    def unwatch(self, fd: int) -> None:
        """Stop that; one that is not watched is no error."""


class Loop(Watcher, Protocol):
    """The supervisor, as its containers see it."""

    def command(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """Send to podinit."""

    def new_id(self, listener: Optional[Listener] = None) -> int:
        """An id for podinit that nobody had yet.

        :param listener: told of each event about it, up to the last.
        """

    def changed(self) -> None:
        """A container's record is a new one."""

    def note(self, container: str, reason: str, message: str, *, is_warning: bool) -> None:
        """Something happened that is worth an Event of the Pod."""

    def log_grew(self) -> None:
        """A log has more to read; may be called from any thread."""

    def in_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do what may block elsewhere, then tell the loop.

        :param work: must not raise.
        :raises RuntimeError: there can be no other thread now.
        """

    def ask_files(
        self, work: Callable[[], T], then: Callable[[T], None], *, instead: T, timeout_s: float
    ) -> None:
        """Do what touches the shared file system where it may hang, then tell the loop; see
        hpk.supervisor.base.shared_files.SharedFiles.ask."""

    def post(self, event: Callable[[], None]) -> None:
        """Have this done soon, not from within this call."""

    @property
    def network(self) -> PodNetwork:
        """The pod's."""
