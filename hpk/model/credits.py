"""What the receiver of a stream's channel allows its sender: bookkeeping of both ends, no I/O.

A window is what may be under way or wait to be read. A channel begins with FIRST_CREDIT_BYTES; one
that has carried much, which its reader took, gets WIDE_BYTES, so that the way's delay does not hold
it back. Few of a connection have that at a time, so all of them together stay small.
"""

from __future__ import annotations

from typing import Union

from hpk.model.errors import ParseError
from hpk.model.stream_frames import FIRST_CREDIT_BYTES, StreamData, StreamEnd

WIDE_BYTES = 1024 * 1024
WIDE_CHANNELS = 16
"""Of one connection."""
_WIDE_AFTER_BYTES = 1024 * 1024


class WideWindows:
    """Of one connection: those that are left to give."""

    def __init__(self) -> None:
        self._left = WIDE_CHANNELS

    def take(self) -> bool:
        """One of them; False where there is none."""
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """One that `take` gave."""
        self._left += 1


class Receipt:
    """Of one channel: what has come, what of it was read, how far its sender may go."""

    def __init__(self, wide: WideWindows) -> None:
        self.has_ended = False
        self._wide = wide
        self._received = 0
        self._read = 0
        self._limit = self._window = FIRST_CREDIT_BYTES

    def take(self, frame: Union[StreamData, StreamEnd]) -> None:
        """Bytes have come, or their end.

        :raises ParseError: it was not the sender's to send them.
        """
        where = f"stream {frame.stream}, channel {frame.channel}"
        if self.has_ended or frame.position != self._received:
            raise ParseError(f"{where}: something at {frame.position} out of turn")
        if isinstance(frame, StreamEnd):
            self.close()
            return
        self._received += len(frame.data)
        if self._received > self._limit:
            raise ParseError(f"{where}: more bytes than were allowed")

    def read(self, size: int) -> None:
        """So many more bytes have found their reader."""
        self._read += size

    @property
    def is_credit_due(self) -> bool:
        """Whether the sender should hear how far it may go."""
        step = max(FIRST_CREDIT_BYTES // 2, self._window // 4)
        return not self.has_ended and self._read + self._window - self._limit >= step

    def grant(self) -> int:
        """Up to where it may go from now on."""
        if self._window < WIDE_BYTES and self._read >= _WIDE_AFTER_BYTES and self._wide.take():
            self._window = WIDE_BYTES
        self._limit = max(self._limit, self._read + self._window)
        return self._limit

    def close(self) -> None:
        """Nothing more comes, or counts."""
        self.has_ended = True
        if self._window == WIDE_BYTES:
            self._wide.give_back()
            self._window = 0
