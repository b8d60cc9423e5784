"""The supervisor's ends of what a program has for standard input, output and error."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Optional, Protocol

from hpk.model.frames import TerminalSize
from hpk.model.stream_frames import STDIN, STDOUT
from hpk.supervisor.process import terminal

Descriptors = Mapping[int, int]
"""By channel (hpk.model.stream_frames)."""


class Ends(Protocol):
    """Of one program."""

    def open(self) -> tuple[int, ...]:
        """Make them; the descriptors for podinit (see Run), which the caller closes.

        :raises OSError: there are no more.
        """

    def give(self) -> tuple[Descriptors, Descriptors]:
        """The outputs and inputs of a stream, once the program runs; they are given away.

        :raises OSError: there are no more descriptors.
        """

    def resize(self, size: TerminalSize) -> None:
        """The terminal has another size; nothing where there is none."""

    def close(self) -> None:
        """Let go of what was not given away."""


class Pipes:
    """A pipe for each channel that is asked for; for the others /dev/null."""

    def __init__(self, channels: Iterable[int]) -> None:
        self._channels = tuple(channels)
        self._fds: dict[int, int] = {}

    def open(self) -> tuple[int, ...]:
        """See Ends.open."""
        theirs: list[int] = []
        try:
            for channel in range(3):
                theirs.append(self._open(channel) if channel in self._channels else null())
        except OSError:
            for fd in theirs:
                os.close(fd)
            self.close()
            raise
        return tuple(theirs)

    def _open(self, channel: int) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        self._fds[channel], their = (write, read) if channel == STDIN else (read, write)
        return their

    def give(self) -> tuple[Descriptors, Descriptors]:
        """See Ends.give."""
        fds, self._fds = self._fds, {}
        inputs = {STDIN: fds.pop(STDIN)} if STDIN in fds else {}
        return fds, inputs

    def resize(self, size: TerminalSize) -> None:
        """See Ends.resize."""

    def close(self) -> None:
        """See Ends.close."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}


class Terminal:
    """The master of a terminal, which is output and, where it is asked for, input; kept for its
    size, too."""

    def __init__(self, *, has_input: bool) -> None:
        self._has_input = has_input
        self._sock: Optional[socket.socket] = None
        self._size: Optional[TerminalSize] = None
        self.master = -1
        """-1 before `receive` and after `close`."""

    def open(self) -> tuple[int, ...]:
        """See Ends.open."""
        self._sock, theirs = socket.socketpair()
        return (theirs.detach(),)

    def receive(self) -> None:
        """The program runs, and its terminal's master has come before.

        :raises OSError: without its descriptor, for there are no more.
        """
        if self._sock is not None:
            self.master = terminal.receive_descriptor(self._sock)
            if self._size is not None:
                self.resize(self._size)

    def give(self) -> tuple[Descriptors, Descriptors]:
        """See Ends.give."""
        self.receive()
        outputs, inputs = {STDOUT: os.dup(self.master)}, {}
        if self._has_input:
            try:
                inputs[STDIN] = os.dup(self.master)
            except OSError:
                os.close(outputs[STDOUT])
                raise
        return outputs, inputs

    def resize(self, size: TerminalSize) -> None:
        """See Ends.resize."""
        self._size = size
        if self.master >= 0:
            with contextlib.suppress(OSError):
                terminal.set_size(self.master, size)

    def close(self) -> None:
        """See Ends.close."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def null() -> int:
    """What reads as nothing and takes everything."""
    return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)


def to_nobody() -> int:
    """What can be written to and waited for, and nobody reads."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.close(read)
    return write
