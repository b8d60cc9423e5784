"""A stream of the channel, as whoever answers it in the job sees it: descriptors, a last word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Optional, Protocol

from hpk.model.frames import StreamClosed, TerminalSize


class StreamTable(Protocol):
    """The streams that the kubelet has open. The loop's thread alone calls this; the channel's
    thread moves the bytes, and the loop never waits for a client."""

    def carry(
        self,
        stream: int,
        *,
        outputs: Mapping[int, int],
        inputs: Mapping[int, int],
        on_input_end: Optional[Callable[[], None]] = None,
    ) -> None:
        """The stream is opened (StreamOpened is said): carry its bytes from now on.

        :param outputs: channel to the descriptor to read it from, to its end: no more bytes, or EIO
            as a terminal has it that no program has open any more.
        :param inputs: channel to the descriptor to write it to; closed at the channel's end, a
            socket that is an output too is shut down for writing instead. Where nobody reads it
            any more (EPIPE, EIO) the rest of the channel goes nowhere.
        :param on_input_end: told, in the loop, that the client's input has ended and was written.

        The descriptors are the table's from now on, whatever becomes of the stream; they are ones
        that can be waited for (no regular file), and made non-blocking.
        """

    def finish(self, closed: StreamClosed, *, cut: bool = False) -> None:
        """The last word, said when all outputs have ended and were sent; of a socket that is input
        and output, when both its directions have. Of a stream that was never carried: at once. One
        that is not there any more is no error.

        :param cut: an output ends where there is nothing to be read at this moment: of a terminal
            whose program has ended, for what that left behind may hold it open for ever.
        """


HangUp = Callable[[int], None]
"""Told, in the loop, of a stream that was carried and whose client or connection has gone; or that
was to be carried, and had gone by then. Its descriptors are closed, nobody waits for its last word;
one that has had it meanwhile is no error."""


class Session(Protocol):
    """What runs at the other end of a stream that a container answers (exec, attach), until it says
    the last word to the table itself."""

    def resize(self, size: TerminalSize) -> None:
        """The client's terminal has another size; nothing where there is none here."""

    def hang_up(self) -> None:
        """The client has gone, or the connection. Says the last word."""
