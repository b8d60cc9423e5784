"""A container's lifecycle hooks. Source: kubernetes pkg/kubelet/lifecycle/handlers.go.

A hook has no time limit of its own: it ends, or what waits for it goes on without it. An answer to
httpGet is success whatever its status, as upstream has it. What a hook wrote goes nowhere but the
job's log: it may hold a secret, and Events are read by many.
"""

from __future__ import annotations

import time
from typing import Callable, Optional

from hpk.model.handlers import Handler
from hpk.supervisor.check_result import CheckResult, Outcome
from hpk.supervisor.exec_check import RunMessage
from hpk.supervisor.files import log
from hpk.supervisor.handling import LIFECYCLE_AGENT, Action, Handling
from hpk.supervisor.loop import Loop

_NETWORK_TIMEOUT_S = 3600.0


class Hook:
    """One run of a hook.

    :param on_end: told once whether it went well; not after `cancel`.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        loop: Loop,
        run_message: RunMessage,
        on_end: Callable[[bool], None],
    ) -> None:
        self._name = name
        self._on_end = on_end
        self._handling: Optional[Handling] = None
        self.wake_mono_s: Optional[float] = None
        """When `tick` wants to be called."""
        if handler.sleep_s is not None:
            self.wake_mono_s = time.monotonic() + handler.sleep_s
        else:
            action = Action(handler, _NETWORK_TIMEOUT_S, run_message, LIFECYCLE_AGENT)
            self._handling = Handling(loop, action, self._take)

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

    def _take(self, result: CheckResult) -> None:
        went_well = result.outcome in (Outcome.SUCCESS, Outcome.WARNING)
        if result.text.startswith("HTTP probe failed with statuscode"):
            went_well = True
        if not went_well:
            log(
                "a lifecycle hook failed", hook=self._name, why=result.text[:500].replace("\n", " ")
            )
        self._on_end(went_well)
