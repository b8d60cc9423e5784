"""A stream of the channel, as whoever answers it in the job sees it: descriptors, a last word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Protocol

from hpk.model.frames import StreamClosed


class StreamTable(Protocol):
    """The streams that the kubelet has open. The loop's thread alone calls this; the channel's
    thread moves the bytes, and the loop never waits for a client."""

    def carry(self, stream: int, *, outputs: Mapping[int, int], inputs: Mapping[int, int]) -> None:
        """The stream is opened (StreamOpened is said): carry its bytes from now on.

        :param outputs: channel to the descriptor to read it from, to its end.
        :param inputs: channel to the descriptor to write it to; closed at the channel's end, a
            socket that is an output too is shut down for writing instead.

        The descriptors are the table's from now on, whatever becomes of the stream.
        """

    def finish(self, closed: StreamClosed) -> None:
        """The last word, said when all outputs have ended and were sent. Of a stream that was never
        carried: at once. One that is not there any more is no error."""


HangUp = Callable[[int], None]
"""Told, in the loop, of a stream that was carried and whose client or connection has gone."""
