"""What somebody in the container of an MPI run sends to process 1, which no rank is.

In any other container process 1 is the program, and whoever stops a container from within signals
that: Argo's ``argoexec kill``, people's ``kill -TERM 1``. Ranks are in the node's PID namespace. So
the kernel asks us about this one call of programs that are run beside them, and all ranks get the
signal, on all nodes.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Callable, Optional

from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.process.seccomp.listener import answer_done, next_call
from hpk.supervisor.process.terminal import receive_descriptor


class SignalsToRanks:
    """Of one program and what it starts.

    :param on_signal: given each signal's number.
    """

    def __init__(self, loop: Loop, on_signal: Callable[[int], None]) -> None:
        self._loop = loop
        self._on_signal = on_signal
        self._sock: Optional[socket.socket] = None
        self._listener = -1

    def open(self) -> int:
        """A descriptor for podinit (see Run), which the caller closes.

        :raises OSError: there are no more.
        """
        self._sock, theirs = socket.socketpair()
        return theirs.detach()

    @property
    def is_open(self) -> bool:
        """Whether a program may still be heard, or is about to be started."""
        return self._sock is not None or self._listener >= 0

    def started(self) -> None:
        """The program runs."""
        if self._sock is None:
            return
        try:
            self._listener = receive_descriptor(self._sock)
        except OSError as error:  # its call fails with ENOSYS
            log("cannot hear a program's signals to the ranks", error=error)
            self.close()
            return
        self._sock.close()
        self._sock = None
        self._loop.watch(self._listener, self._on_call)

    def _on_call(self) -> None:
        try:
            call = next_call(self._listener)
        except EOFError:
            self.close()
            return
        if call is not None:
            number = call.arguments[1] & 0xFFFFFFFF
            answer_done(self._listener, call)
            if 0 < number < signal.NSIG:  # 0 asks whether it is there
                self._on_signal(number)

    def close(self) -> None:
        """Nobody listens any more."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self._listener >= 0:
            self._loop.unwatch(self._listener)
            os.close(self._listener)
            self._listener = -1
