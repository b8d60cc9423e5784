"""The node's own network as that of a pod: what there is of it is there already."""

from __future__ import annotations

import socket
from typing import Callable

from hpk.supervisor.link import forwarder


class HostNetwork:
    """Fulfils hpk.supervisor.base.pod_network.PodNetwork.

    :param host_ip: tells the address that others reach this node at, as of now.
    """

    def __init__(self, host_ip: Callable[[], str]) -> None:
        self._host_ip = host_ip

    @property
    def addresses(self) -> tuple[str, ...]:
        """The one by which this node is seen."""
        return (self._host_ip(),)

    def dial(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """See PodNetwork.dial."""
        return socket.create_connection((host, port), timeout_s)

    def listen(self) -> socket.socket:
        """See PodNetwork.listen."""
        return forwarder.listen()
