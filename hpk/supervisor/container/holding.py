"""The runtime that holds a container open for one start of its program."""

from __future__ import annotations

import os

from hpk.durable import read_file
from hpk.model.plan import ContainerPlan
from hpk.supervisor.base.loop import Listener, Loop
from hpk.supervisor.container import start_orders
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.inside.localdir import clear_away
from hpk.supervisor.process import pod_messages

_MAX_ERROR_BYTES = 8192


class Holding:
    """See the module's docstring. An MPI run has none: its ranks make theirs.

    :param on_event: told what podinit says of it.
    """

    def __init__(self, pod: PodContext, loop: Loop, on_event: Listener) -> None:
        self._pod = pod
        self._loop = loop
        self._on_event = on_event
        self._is_closed = True
        self.id = 0
        """0 before `open`."""
        self.is_open = False
        """Whether programs can enter."""
        self.directory = pod.dirs.new_directory()

    def open(self, plan: ContainerPlan) -> None:
        """Start it.

        :param plan: with the paths of its mounts.
        :raises VolumeError: a volume is not there yet. Nothing has been opened: try again.
        :raises OSError, ParseError, PermanentError: it cannot be made.
        """
        hold_id = self._loop.new_id(self._on_event)
        message = start_orders.open_message(self._pod, plan, self.directory, hold_id)
        self.id, self._is_closed = hold_id, False
        errors = os.open(self._errors_path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._loop.command(message, (errors,))
        finally:
            os.close(errors)

    @property
    def _errors_path(self) -> str:
        return os.path.join(self.directory, "runtime.err")

    def errors(self) -> str:
        """What it has said."""
        return read_file(self._errors_path, _MAX_ERROR_BYTES).decode(errors="replace").strip()

    def renew(self) -> None:
        """It has ended before it was open: the next is in a directory of its own."""
        self.clear_up()
        self.directory, self.id = self._pod.dirs.new_directory(), 0

    def close(self) -> None:
        """Kill what is left in it. It may still be going down when the log is complete."""
        if self.id and not self._is_closed:
            self._loop.command(pod_messages.Close(self.id))

    def closed(self) -> None:
        """It has ended, or podinit has."""
        self._is_closed = True

    def clear_up(self) -> None:
        """Remove what it left on this node's disk; that may take its time."""
        directory = self.directory
        self._loop.in_thread(lambda: clear_away(directory), lambda _: None)
