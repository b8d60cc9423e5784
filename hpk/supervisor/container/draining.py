"""The end of one start of a container's log: every byte of its pipes, on the disk.

The program has ended by then; a process that it left behind may hold the pipes open, and the log's
disk may be slow. Neither is waited for without end.
"""

from __future__ import annotations

import time
from typing import Callable, Optional

from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.output import Output

_PIPE_TIMEOUT_S = 5.0
_LOG_TIMEOUT_S = 30.0


class Draining:
    """See the module's docstring.

    :param output: None where the program never started.
    :param on_end: called once, when all is on the disk or enough time has passed.
    """

    def __init__(
        self, output: Optional[Output], writer: LogWriter, on_end: Callable[[], None]
    ) -> None:
        self._output = output
        self._writer = writer
        self._on_end = on_end
        self._is_closing = False
        self._is_over = False
        now = time.monotonic()
        self._log_deadline_mono_s = now + _LOG_TIMEOUT_S
        self._pipe_deadline_mono_s = now + _PIPE_TIMEOUT_S

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `look` wants to be called."""
        if self._is_over:
            return None
        return self._log_deadline_mono_s if self._is_closing else self._pipe_deadline_mono_s

    def begin(self) -> None:
        """The program has ended."""
        if self._output is not None:
            self._output.drain()
        self.look()

    def look(self) -> None:
        """Something has changed, or the time asked for by `wake_mono_s` has come."""
        if self._is_over:
            return
        now = time.monotonic()
        if not self._is_closing:
            if self._output is not None and self._output.is_open:
                if now < self._pipe_deadline_mono_s:
                    return
                self._output.cut()
            self._is_closing = True
            self._writer.close()
        if self._writer.closed or now >= self._log_deadline_mono_s:
            self._is_over = True
            self._on_end()
