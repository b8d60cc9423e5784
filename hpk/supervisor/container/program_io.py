"""Standard input, output and error of one start of a container's program."""

from __future__ import annotations

import fcntl
import os
from typing import Callable, Optional

from hpk.model.bundle import Bundle
from hpk.model.frames import TerminalSize
from hpk.model.plan import ContainerPlan
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Watcher
from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.ends import Terminal, null
from hpk.supervisor.container.output import Output
from hpk.supervisor.ranks import rank_files


class ProgramIo:
    """See the module's docstring.

    With ``tty`` all three are one terminal, whose output is the stream "stdout". With ``stdin`` the
    input is open until the program ends, and with ``stdinOnce`` as well until the first who was
    given it lets it go; without, there is nothing to read.

    :param on_errors: given every piece of standard error too.
    :param on_end: called when all output has ended.
    """

    def __init__(
        self,
        plan: ContainerPlan,
        watcher: Watcher,
        writer: LogWriter,
        on_errors: Optional[Callable[[bytes], None]],
        on_end: Callable[[], None],
    ) -> None:
        self._plan = plan
        self.output = Output(watcher, writer, on_errors, on_end)
        self._terminal = Terminal(has_input=True) if plan.tty else None
        self._stdin = -1

    @property
    def is_terminal(self) -> bool:
        """Whether output and error are one."""
        return self._terminal is not None

    @property
    def ends_with_reader(self) -> bool:
        """Whether the program's input ends with that of the first who was given it."""
        return self._plan.stdin_once and not self.is_terminal

    def open(self, bundle: Bundle) -> tuple[int, ...]:
        """The descriptors for podinit (see Run), which the caller closes.

        :raises OSError: there are no more.
        """
        if self._terminal is not None:
            return self._terminal.open()
        if self._plan.mpi is not None:
            stdin = rank_files.bundle_stdin(bundle)
        elif self._plan.stdin:
            stdin, self._stdin = os.pipe2(os.O_CLOEXEC)
        else:
            stdin = null()
        return (stdin, *self.output.open())

    def started(self) -> None:
        """The program runs."""
        if self._terminal is None:
            return
        try:
            self._terminal.receive()
            self.output.adopt(_duplicate(self._terminal.master))
        except OSError as error:  # no more descriptors; what nobody holds is hung up
            log("a container's terminal is lost", container=self._plan.name, error=error)
            self._terminal.close()

    def take_input(self) -> Optional[int]:
        """A descriptor to write the program's input to, for the caller to close; None: there is
        none, or no more.

        :raises OSError: there are no more descriptors.
        """
        if not self._plan.stdin:
            return None
        if self._terminal is not None:
            return _duplicate(self._terminal.master) if self._terminal.master >= 0 else None
        if self._stdin < 0:
            return None
        if not self._plan.stdin_once:
            return _duplicate(self._stdin)
        given, self._stdin = self._stdin, -1
        return given

    def resize(self, size: TerminalSize) -> None:
        """The terminal has another size; nothing where there is none."""
        if self._terminal is not None:
            self._terminal.resize(size)

    def end(self) -> None:
        """The program has ended."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def close(self) -> None:
        """All its output was read."""
        self.end()
        if self._terminal is not None:
            self._terminal.close()


def _duplicate(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
