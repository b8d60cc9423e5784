"""Which process is meant: a pid together with the time it started, so that none is mistaken."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process of this host and boot.

    :param start_ticks: field 22 of ``/proc/PID/stat`` (proc_pid_stat(5)); 0 if it was gone.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this pid now."""
        return cls(pid=pid, start_ticks=_start_ticks(pid) or 0)

    def is_alive(self) -> bool:
        """Whether it is this very process, not ended, that has the pid."""
        return self.start_ticks != 0 and _start_ticks(self.pid) == self.start_ticks

    def send(self, number: signal.Signals) -> bool:
        """Signal it; False if it has ended. Safe against a pid's reuse: it goes by a pidfd."""
        try:
            fd = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return False
        try:
            if not self.is_alive():
                return False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
            return True
        finally:
            os.close(fd)

    def end(self, *, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace; returns when it has ended. Blocks."""
        if not self.send(signal.SIGTERM):
            return
        deadline = time.monotonic() + grace_s
        killed = False
        while self.is_alive():
            if not killed and time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                killed = True
            time.sleep(_POLL_S)


def _start_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The command name, in parentheses, may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])
