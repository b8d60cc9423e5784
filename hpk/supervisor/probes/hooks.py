"""A container's lifecycle hooks. Source: kubernetes pkg/kubelet/lifecycle/handlers.go.

A hook has no time limit of its own: it ends, or what waits for it goes on without it. An answer to
httpGet is success whatever its status, as upstream has it. What a hook wrote goes nowhere but the
job's log: it may hold a secret, and Events are read by many.
"""

from __future__ import annotations

import time
from typing import Callable, Optional

from hpk.model.frozen import replace
from hpk.model.handlers import Handler
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.exec_check import RunMessage
from hpk.supervisor.probes.handling import LIFECYCLE_AGENT, Action, Handling

_NETWORK_TIMEOUT_S = 3600.0


class Hook:
    """One run of a hook.

    :param name: ``postStart`` or ``preStop``; ``container``: whose.
    :param on_end: told once whether it went well; not after `cancel`.
    """

    def __init__(
        self,
        name: str,
        container: str,
        handler: Handler,
        loop: Loop,
        run_message: RunMessage,
        on_end: Callable[[bool], None],
    ) -> None:
        self._name = name
        self._handler = handler
        self._loop = loop
        self._container = container
        self._run_message = run_message
        self._on_end = on_end
        self._handling: Optional[Handling] = None
        self._is_fallback = False
        self.wake_mono_s: Optional[float] = None
        """When `tick` wants to be called."""
        if handler.sleep_s is not None:
            self.wake_mono_s = time.monotonic() + handler.sleep_s
        else:
            self._run()

    def tick(self) -> None:
        """The time asked for by `wake_mono_s` has come."""
        if self.wake_mono_s is not None and time.monotonic() >= self.wake_mono_s:
            self.wake_mono_s = None
            self._on_end(True)

    def cancel(self) -> None:
        """It does not matter any more."""
        self.wake_mono_s = None
        if self._handling is not None:
            self._handling.cancel()

    def _run(self) -> None:
        action = Action(self._handler, _NETWORK_TIMEOUT_S, self._run_message, LIFECYCLE_AGENT)
        self._handling = Handling(self._loop, action, self._take)

    def _take(self, result: CheckResult) -> None:
        get = self._handler.http_get
        if get is not None and result.refused_tls and get.scheme == "HTTPS":
            # As upstream has it, for the days when it spoke HTTP whatever the Pod said.
            headers = tuple(item for item in get.headers if item[0].lower() != "authorization")
            self._handler = Handler(http_get=replace(get, scheme="HTTP", headers=headers))
            self._is_fallback = True
            self._run()
            return
        went_well = result.outcome in (Outcome.SUCCESS, Outcome.WARNING) or result.answered
        if went_well and self._is_fallback:
            host = get.host or self._loop.network.addresses[0] if get else ""
            text = (
                f"request to HTTPS lifecycle hook {host}:{get.port if get else 0} got HTTP"
                " response, retry with HTTP succeeded"
            )
            self._loop.note(self._container, "LifecycleHTTPFallback", text, is_warning=True)
        if not went_well:
            log(
                "a lifecycle hook failed", hook=self._name, why=result.text[:500].replace("\n", " ")
            )
        self._on_end(went_well)
