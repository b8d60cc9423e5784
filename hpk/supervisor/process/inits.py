"""The processes that the pod's own are children of, seen from the supervisor.

Containers live under one in namespaces of the pod; an MPI launcher under one without, for Slurm
must see it. A pod has one of either or both; commands go to whom they concern.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import Any, Optional

from hpk.model.frozen import dataclass
from hpk.supervisor.base.job_log import log
from hpk.supervisor.process import pod_messages, podinit


@dataclass(frozen=True)
class Init:
    """One podinit. ``is_host``: it is in no namespace of the pod's."""

    pid: int
    socket: socket.socket
    is_host: bool


class Inits:
    """Both, or the one there is."""

    def __init__(self, pod: Optional[Init], host: Optional[Init]) -> None:
        self._pod = pod
        self._host = host
        self._on_host: set[int] = set()

    @property
    def all(self) -> tuple[Init, ...]:
        """Those that were started."""
        return tuple(init for init in (self._pod, self._host) if init is not None)

    def send(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """Tell the one whom the message concerns."""
        if isinstance(message, pod_messages.Run) and message.container is None:
            self._on_host.add(message.id)
        init = self._host if message.id in self._on_host else self._pod
        if init is None:
            raise AssertionError("a command for a podinit that was not started")
        try:
            pod_messages.send(init.socket, message, fds)
        except OSError as error:
            log("podinit is gone", error=error)

    def end(self, timeout_s: float) -> None:
        """End both, and with them whatever the pod left running."""
        for init in self.all:
            init.socket.close()
        deadline = time.monotonic() + timeout_s
        for init in self.all:
            while not os.waitpid(init.pid, os.WNOHANG)[0]:
                if time.monotonic() >= deadline:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(init.pid, signal.SIGKILL)
                    break
                time.sleep(0.005)


def start_inits(
    *,
    for_containers: bool,
    for_launcher: bool,
    hostname: str,
    sysctls: tuple[tuple[str, str], ...] = (),
) -> Inits:
    """Fork them; before any thread is started.

    :param hostname: what the pod's containers are called.
    """
    pod = Init(*podinit.spawn(hostname, sysctls), is_host=False) if for_containers else None
    host = Init(*podinit.spawn(None), is_host=True) if for_launcher else None
    return Inits(pod, host)
