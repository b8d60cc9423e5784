"""A program that somebody runs in a container through the API: `kubectl exec`.

It is what the container's own program is, as a probe's command: same user, environment, directory
and rights, in a session of its own, and killed with the container. Its bytes are the stream
table's; here it is started, told the size of its terminal, and its end is said.

A client that goes away takes its end of the pipes, or of the terminal, with it: the program reads
to the end, gets SIGPIPE when it writes, and SIGHUP from a terminal. One that does none of this goes
on, as upstream's does.
"""

from __future__ import annotations

import os
import signal
from typing import Callable, Optional

from hpk.model.frames import ExecOpen, StreamClosed, StreamError, TerminalSize
from hpk.model.stream_frames import STDERR, STDIN, STDOUT
from hpk.supervisor.base import termination
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.base.streams import StreamTable
from hpk.supervisor.container.ends import Ends, Pipes, Terminal
from hpk.supervisor.container.signals_to_ranks import SignalsToRanks
from hpk.supervisor.process import pod_messages

ExecMessage = Callable[[ExecOpen, int], pod_messages.Run]
"""What podinit is to be told, of what was asked for and an id."""


class ExecSession:
    """See the module's docstring; a hpk.supervisor.base.streams.Session.

    :param on_end: called once, when the last word is said.
    """

    def __init__(
        self, frame: ExecOpen, table: StreamTable, loop: Loop, on_end: Callable[[], None]
    ) -> None:
        self._frame = frame
        self._table = table
        self._loop = loop
        self._on_end = on_end
        self._ends = _ends(frame)
        self._signals: Optional[SignalsToRanks] = None
        self._run_id = 0
        self._has_started = False
        self._is_over = False

    def begin(self, message: ExecMessage, signals: Optional[SignalsToRanks] = None) -> None:
        """Have it started; whatever comes of that is told to the stream table.

        :param signals: of a program beside ranks.
        """
        if self._is_over:
            return
        self._signals = signals
        theirs: tuple[int, ...] = ()
        try:
            theirs = self._ends.open()
            if signals is not None:
                theirs += (signals.open(),)
            run_id = self._loop.new_id(self._on_event)
            self._loop.command(message(self._frame, run_id), theirs)
            self._run_id = run_id
        except (OSError, ValueError) as error:  # no more descriptors: for now
            self._fail(f"cannot start a process: {error}")
        finally:
            for fd in theirs:
                os.close(fd)

    def refuse(self, why: str) -> None:
        """It cannot be begun."""
        self._fail(why)

    def resize(self, size: TerminalSize) -> None:
        """See Session.resize."""
        self._ends.resize(size)

    def hang_up(self) -> None:
        """See Session.hang_up."""
        self._finish(StreamClosed(self._frame.id))

    def end(self, *, lost: str = "") -> None:
        """Its container has ended, and the kernel has killed it; beside ranks, that is ours to do.

        :param lost: why nobody will tell more of it, "" where that was in order.
        """
        if self._signals is not None and self._run_id and not lost:
            self._loop.command(pod_messages.Signal(self._run_id, signal.SIGKILL, group=True))
        if lost:
            self._finish(StreamClosed(self._frame.id, error=StreamError.LOST, message=lost))
        else:
            self._finish(StreamClosed(self._frame.id, exit_code=128 + signal.SIGKILL))

    def _on_event(self, event: object) -> None:
        if self._is_over:
            return
        if isinstance(event, pod_messages.NotStarted):
            self._fail(event.message)
        elif isinstance(event, pod_messages.Started):
            self._has_started = True
            if self._signals is not None:
                self._signals.started()
            self._carry()
        elif isinstance(event, pod_messages.Exited):
            code, _ = termination.exit_code_of(event.status)
            self._finish(StreamClosed(self._frame.id, exit_code=code))

    def _carry(self) -> None:
        try:
            outputs, inputs = self._ends.give()
        except OSError as error:  # no more descriptors; it is hung up on
            self._fail(f"cannot start a process: {error}")
            return
        self._table.carry(self._frame.id, outputs=outputs, inputs=inputs)

    def _fail(self, why: str) -> None:
        log("exec: not started", container=self._frame.container, why=why[:500])
        self._finish(StreamClosed(self._frame.id, error=StreamError.NOT_STARTED, message=why))

    def _finish(self, closed: StreamClosed) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._ends.close()
        if self._signals is not None and not self._has_started:
            self._signals.close()
        self._table.finish(closed, cut=self._frame.tty)
        self._on_end()


def _ends(frame: ExecOpen) -> Ends:
    if frame.tty:
        return Terminal(has_input=frame.stdin)
    asked = ((STDIN, frame.stdin), (STDOUT, frame.stdout), (STDERR, frame.stderr))
    return Pipes(channel for channel, is_asked in asked if is_asked)
