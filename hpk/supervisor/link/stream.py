"""One stream of the channel, as the channel's thread knows it, and what the loop orders of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Callable, Optional

from hpk.model import frames
from hpk.model.credits import WideWindows
from hpk.model.frozen import dataclass
from hpk.supervisor.link.stream_ends import Descriptors, Input, Output


@dataclass(frozen=True)
class Carry:
    """The loop's order to carry a stream."""

    stream: int
    outputs: Mapping[int, int]
    inputs: Mapping[int, int]
    on_input_end: Optional[Callable[[], None]]

    @property
    def fds(self) -> set[int]:
        """All descriptors."""
        return {*self.outputs.values(), *self.inputs.values()}


@dataclass(frozen=True)
class Finish:
    """The loop's last word on a stream."""

    closed: frames.StreamClosed
    cut: bool

    @property
    def stream(self) -> int:
        """Its number."""
        return self.closed.id


class Stream:
    """One of a connection's; see hpk.supervisor.link.streams.

    :ivar id: the kubelet's number for it.
    :ivar number: the loop's.
    """

    def __init__(self, stream_id: int, number: int, wide: WideWindows) -> None:
        self.id = stream_id
        self.number = number
        self.descriptors: Optional[Descriptors] = None
        self.outputs: dict[int, Output] = {}
        self.stdin = Input(None, wide)
        self.is_two_way = False
        """A connection, which is not over before both its directions are."""
        self.on_input_end: Optional[Callable[[], None]] = None
        self.last_word: Optional[frames.StreamClosed] = None

    @property
    def is_carried(self) -> bool:
        """Whether it was opened."""
        return self.descriptors is not None

    @property
    def is_silent(self) -> bool:
        """Whether all that there was to say is said."""
        is_read = self.is_two_way and not self.stdin.is_over
        return not is_read and all(output.is_over for output in self.outputs.values())

    @property
    def read_fds(self) -> set[int]:
        """Descriptors that are still read."""
        return {output.fd for output in self.outputs.values() if not output.is_over}

    @property
    def written_fds(self) -> set[int]:
        """Descriptors that are still written to."""
        return set() if self.stdin.is_over or self.stdin.fd is None else {self.stdin.fd}

    @property
    def all_fds(self) -> set[int]:
        """Those it was carried with."""
        stdin = set() if self.stdin.fd is None else {self.stdin.fd}
        return stdin | {output.fd for output in self.outputs.values()}
