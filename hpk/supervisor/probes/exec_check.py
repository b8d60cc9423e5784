"""Running a command inside a running container, for a probe or a hook.

The command is what its container's program is: same user, same environment, same directory, and
killed with it. Its output is read by the supervisor's loop; of it a few kilobytes are kept.
"""

from __future__ import annotations

import os
import signal
from typing import Callable

from hpk.supervisor.base import termination
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.probes.check_result import MAX_OUTPUT_BYTES, CheckResult, Outcome
from hpk.supervisor.process import pod_messages

RunMessage = Callable[[tuple[str, ...], int], pod_messages.Run]
"""What podinit is to be told, of a command and an id."""


class ExecCheck:
    """One command.

    :param on_result: told once how it ended; not after `cancel`.
    :raises OSError: there are no more descriptors; nothing is told then.
    """

    def __init__(
        self,
        loop: Loop,
        command: tuple[str, ...],
        run_message: RunMessage,
        on_result: Callable[[CheckResult], None],
    ) -> None:
        self._loop = loop
        self._on_result = on_result
        self._output = b""
        self._is_over = False
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._read_fd, False)
            try:
                self._id = loop.new_id(self._on_event)
                loop.watch(self._read_fd, self._on_readable)
                loop.command(run_message(command, self._id), (null, write_fd, write_fd))
            except OSError:
                self._is_over = True
                self._close()
                raise
            finally:
                os.close(write_fd)
        finally:
            os.close(null)

    def cancel(self) -> None:
        """Kill it, and hear no more of it."""
        if not self._is_over:
            self._is_over = True
            self._close()
            self._loop.command(pod_messages.Signal(self._id, signal.SIGKILL, group=True))

    def _on_readable(self) -> None:
        if self._is_over:
            return
        try:
            data = os.read(self._read_fd, 65536)
        except BlockingIOError:
            return
        if data:
            self._output = (self._output + data)[:MAX_OUTPUT_BYTES]
        else:
            self._loop.unwatch(self._read_fd)

    def _on_event(self, event: object) -> None:
        if self._is_over:
            return
        if isinstance(event, pod_messages.NotStarted):
            self._finish(CheckResult(Outcome.ERROR, event.message))
        elif isinstance(event, pod_messages.Exited):
            self._on_readable()
            code, _ = termination.exit_code_of(event.status)
            outcome = Outcome.SUCCESS if code == 0 else Outcome.FAILURE
            self._finish(CheckResult(outcome, self._output.decode(errors="replace")))

    def _finish(self, result: CheckResult) -> None:
        self._is_over = True
        self._close()
        self._on_result(result)

    def _close(self) -> None:
        self._loop.unwatch(self._read_fd)
        os.close(self._read_fd)
