"""What the kubelet has streamed: who answers it in this pod. Of the loop's thread.

A stream's number here is the table's (hpk.supervisor.link.streams), good until the pod ends.
"""

from __future__ import annotations

from typing import Any

from hpk.model import frames
from hpk.model.ids import PodRef
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.link.streams import Streams
from hpk.supervisor.pod.port_forward import PortForward


class PodStreams:
    """Each frame to the room that knows what it asks for."""

    def __init__(self, loop: Loop, table: Streams, pod: PodRef) -> None:
        self._table = table
        self._port_forward = PortForward(loop, table, pod)

    def take(self, frame: Any) -> None:
        """ExecOpen, AttachOpen, DialOpen or StreamResize."""
        if isinstance(frame, frames.DialOpen):
            self._port_forward.open(frame)
        elif isinstance(frame, (frames.ExecOpen, frames.AttachOpen)):
            log("cannot be streamed yet", frame=type(frame).__name__)
            self._table.finish(
                frames.StreamClosed(
                    frame.id, error=frames.StreamError.REFUSED, message="not served yet"
                )
            )

    def hang_up(self, stream: int) -> None:
        """See hpk.supervisor.base.streams.HangUp."""

    def end(self) -> None:
        """The pod's processes have ended: what is still open says so, its bytes first."""
        self._table.finish_all("the pod has ended")
