"""What the kubelet has streamed: who answers it in this pod. Of the loop's thread.

A stream's number here is the table's (hpk.supervisor.link.streams), good until the pod ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

from hpk.model import frames
from hpk.model.ids import PodRef
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.container.container import Container
from hpk.supervisor.link.streams import Streams
from hpk.supervisor.pod.container_streams import ContainerStreams
from hpk.supervisor.pod.port_forward import PortForward


class PodStreams:
    """Each frame to the room that knows what it asks for.

    :param containers: the pod's, by now.
    """

    def __init__(
        self,
        loop: Loop,
        table: Streams,
        pod: PodRef,
        containers: Callable[[], Iterable[Container]],
    ) -> None:
        self._table = table
        self._port_forward = PortForward(loop, table, pod)
        self._containers = ContainerStreams(table, containers)

    def take(self, frame: Any) -> None:
        """ExecOpen, AttachOpen, DialOpen or StreamResize."""
        if isinstance(frame, frames.DialOpen):
            self._port_forward.open(frame)
        elif isinstance(frame, (frames.ExecOpen, frames.AttachOpen)):
            self._containers.open(frame)
        elif isinstance(frame, frames.StreamResize):
            self._containers.resize(frame)

    def hang_up(self, stream: int) -> None:
        """See hpk.supervisor.base.streams.HangUp."""
        self._containers.hang_up(stream)

    def end(self) -> None:
        """The pod's processes have ended: what is still open says so, its bytes first."""
        self._table.finish_all("the pod has ended")
