"""What a container's program writes, read by the supervisor's loop into its log.

That are two pipes, or the terminal it has. Where the log's disk is slow they are left unread for a
while, so that the container waits in write(2); not for long: then output is read on, and what finds
no room is counted as lost.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from typing import Callable, Optional

from hpk.supervisor.base.loop import Watcher
from hpk.supervisor.container.crilog import LogWriter
from hpk.supervisor.container.fan_out import FanOut
from hpk.supervisor.container.line_former import LineFormer

_READ_BYTES = 64 * 1024
_PIPE_BYTES = 1024 * 1024
_PAUSE_S = 0.05
_MAX_PAUSES_S = 10.0
_F_SETPIPE_SZ = 1031


class Output:
    """Standard output and error of one start of a container.

    :param on_errors: given every piece of standard error too, None where nobody cares.
    :param on_end: called when all of it has ended.
    """

    def __init__(
        self,
        watcher: Watcher,
        writer: LogWriter,
        on_errors: Optional[Callable[[bytes], None]],
        on_end: Callable[[], None],
    ) -> None:
        self._watcher = watcher
        self._writer = writer
        self._on_errors = on_errors
        self._on_end = on_end
        self.fan_out = FanOut()
        """Who else reads it."""
        self._pipes: dict[int, LineFormer] = {}
        self._paused: set[int] = set()
        self._paused_since_mono_s: Optional[float] = None
        self._is_draining = False
        self.wake_mono_s: Optional[float] = None
        """When `tick` wants to be called."""

    @property
    def is_open(self) -> bool:
        """Whether a pipe has not ended yet."""
        return bool(self._pipes)

    def open(self) -> tuple[int, int]:
        """Make the pipes and watch them; the ends for the container, which the caller closes."""
        ends = []
        for stream in ("stdout", "stderr"):
            read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
            with contextlib.suppress(OSError):
                fcntl.fcntl(write_fd, _F_SETPIPE_SZ, _PIPE_BYTES)
            self._read(read_fd, stream)
            ends.append(write_fd)
        return ends[0], ends[1]

    def adopt(self, master: int) -> None:
        """The program has a terminal: this is its other side."""
        self._read(master, "stdout")

    def _read(self, fd: int, stream: str) -> None:
        os.set_blocking(fd, False)
        self._pipes[fd] = LineFormer(stream)
        self._watch(fd)

    def drain(self) -> None:
        """The container has ended: read what is left, however full the log's queue is."""
        self._is_draining = True
        self._resume()

    def cut(self) -> None:
        """Wait no longer for the pipes' end."""
        for fd in list(self._pipes):
            self._end(fd)

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        if self.wake_mono_s is not None and time.monotonic() >= self.wake_mono_s:
            self._resume()

    def _resume(self) -> None:
        self.wake_mono_s = None
        paused, self._paused = self._paused, set()
        for fd in paused:
            self._watch(fd)

    def _watch(self, fd: int) -> None:
        self._watcher.watch(fd, lambda: self._on_readable(fd))

    def _on_readable(self, fd: int) -> None:
        if self._must_wait():
            self._watcher.unwatch(fd)
            self._paused.add(fd)
            self.wake_mono_s = time.monotonic() + _PAUSE_S
            return
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # a terminal that nobody has open any more
        former = self._pipes[fd]
        if data:
            self.fan_out.feed(former.stream, data)
            if former.stream == "stderr" and self._on_errors is not None:
                self._on_errors(data)
            self._writer.append(former.feed(data, time.time_ns()))
            return
        self._end(fd)
        if not self._pipes:
            self._on_end()

    def _must_wait(self) -> bool:
        if self._is_draining:
            return False
        return self.fan_out.must_wait() or self._is_log_full()

    def _is_log_full(self) -> bool:
        if not self._writer.is_full:
            self._paused_since_mono_s = None
            return False
        now = time.monotonic()
        self._paused_since_mono_s = self._paused_since_mono_s or now
        return now - self._paused_since_mono_s < _MAX_PAUSES_S

    def _end(self, fd: int) -> None:
        self._watcher.unwatch(fd)
        self._paused.discard(fd)
        former = self._pipes.pop(fd)
        self._writer.append(former.finish(time.time_ns()))
        os.close(fd)
        self.fan_out.end_of(former.stream)
        if not self._pipes:
            self.fan_out.end()
