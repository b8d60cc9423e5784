"""Running the action of a probe or a hook, without ever holding up the supervisor's loop.

What goes over the network is done by a thread each, a command is podinit's to start. Whatever
becomes of it, the caller is told once, on the loop's thread, unless it has cancelled.
"""

from __future__ import annotations

from typing import Callable, Optional

from hpk.model.frozen import dataclass
from hpk.model.handlers import Handler
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.dialing import check_tcp
from hpk.supervisor.probes.exec_check import ExecCheck, RunMessage

VERSION = "1.37"
"""Of the kubelet whose User-Agent this one's is."""
PROBE_AGENT = f"kube-probe/{VERSION}"
LIFECYCLE_AGENT = f"kube-lifecycle/{VERSION}"


@dataclass(frozen=True)
class Action:
    """A handler of one container, and how long it may take.

    :param run_message: see hpk.supervisor.probes.exec_check.
    """

    handler: Handler
    timeout_s: float
    run_message: RunMessage
    agent: str = PROBE_AGENT


class Handling:
    """An action that is being run."""

    def __init__(
        self, loop: Loop, action: Action, on_result: Callable[[CheckResult], None]
    ) -> None:
        self._on_result = on_result
        self._is_over = False
        self._exec: Optional[ExecCheck] = None
        handler = action.handler
        try:
            if handler.exec:
                self._exec = ExecCheck(loop, handler.exec, action.run_message, self._take)
            else:
                network = loop.network
                loop.in_thread(lambda: _check(action, network), self._take)
        except (OSError, RuntimeError) as error:  # no more descriptors, no more threads
            result = CheckResult(Outcome.ERROR, f"cannot run it: {error}")
            loop.post(lambda: self._take(result))

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._is_over

    def cancel(self) -> None:
        """Whatever comes of it is of no interest any more."""
        self._is_over = True
        if self._exec is not None:
            self._exec.cancel()

    def _take(self, result: CheckResult) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_result(result)


def _check(action: Action, network: PodNetwork) -> CheckResult:
    handler = action.handler
    try:
        if handler.http_get is not None:
            # Here, so that a pod without one does not wait for the import when it starts.
            from hpk.supervisor.probes.http_check import check_http

            return check_http(handler.http_get, network, action.timeout_s, action.agent)
        if handler.grpc is not None:
            from hpk.supervisor.probes.grpc_check import check_grpc

            return check_grpc(handler.grpc, network, action.timeout_s, action.agent)
        if handler.tcp_socket is not None:
            return check_tcp(handler.tcp_socket, network, action.timeout_s)
    except Exception as error:  # a thread of its own: nobody else would hear of it
        return CheckResult(Outcome.ERROR, f"{type(error).__name__}: {error}")
    return CheckResult(Outcome.ERROR, "missing probe handler")
