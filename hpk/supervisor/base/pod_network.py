"""The network that a pod's containers live in, for whoever dials into it or listens there."""

from __future__ import annotations

import socket
from typing import Protocol


class PodNetwork(Protocol):
    """From any thread."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The pod's, as its status shows them, the first one first: ``podIP``. Never empty."""

    def dial(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """A connection as a kubelet on this node would make it: to the pod or to another host.

        :raises OSError: there is none; TimeoutError or socket.timeout: not in time.
        """

    def listen(self) -> socket.socket:
        """A listener on a free port of 127.0.0.1, as the pod's containers see that."""
