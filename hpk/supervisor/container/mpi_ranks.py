"""The ranks of one start of a container, as those who exec beside them need them."""

from __future__ import annotations

from typing import Callable

from hpk.model.bundle import Bundle
from hpk.model.frames import ExecOpen
from hpk.model.plan import ContainerPlan
from hpk.supervisor.container import start_orders
from hpk.supervisor.container.start_orders import PodContext
from hpk.supervisor.process import pod_messages
from hpk.supervisor.ranks import rank_files


class MpiRanks:
    """Fulfils hpk.supervisor.container.sessions.Ranks.

    :param number: of the start.
    :param send: signals all of them.
    """

    def __init__(
        self,
        plan: ContainerPlan,
        pod: PodContext,
        number: int,
        bundle: Bundle,
        send: Callable[[int], None],
    ) -> None:
        self._plan = plan
        self._pod = pod
        self._number = number
        self._bundle = bundle
        self._send = send

    def step_id(self) -> str:
        """See Ranks.step_id."""
        return rank_files.step_id(self._pod.layout, self._plan.name, self._number)

    def message(self, step: str, frame: ExecOpen, run_id: int) -> pod_messages.Run:
        """See Ranks.message."""
        return start_orders.rank_exec_message(
            self._pod, self._plan, self._bundle, step, frame, run_id
        )

    def signal(self, number: int) -> None:
        """See Ranks.signal."""
        self._send(number)
