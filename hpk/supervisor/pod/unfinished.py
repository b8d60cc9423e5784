"""Records of containers whose end nobody saw: never started, or cut off by a failure of ours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from hpk.model.frozen import replace
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan
from hpk.model.record import ContainerPhase, ContainerRecord
from hpk.supervisor.base import termination


def not_started(
    layout: AttemptLayout, plans: Iterable[ContainerPlan], why: str
) -> tuple[ContainerRecord, ...]:
    """Nothing could be started: every container gets the reason."""
    return tuple(_not_started(layout, plan, why) for plan in plans)


def cut_off(
    layout: AttemptLayout,
    plans: Iterable[ContainerPlan],
    records: Sequence[ContainerRecord],
    why: str,
) -> tuple[ContainerRecord, ...]:
    """What has ended stays as it ended, the rest ends here.

    :param records: of those containers that were made.
    """
    by_name = {record.name: record for record in records}
    return tuple(
        _ended(by_name.get(plan.name) or _not_started(layout, plan, why), why) for plan in plans
    )


def _ended(record: ContainerRecord, why: str) -> ContainerRecord:
    state = record.state
    if state.phase is ContainerPhase.RUNNING:
        state = termination.overtaken(why, started_at_s=state.started_at_s, at_s=time.time())
    elif state.phase is ContainerPhase.WAITING:
        state = termination.not_started(record.name, why, time.time())
    return replace(record, state=state, started=False, ready=False)


def _not_started(layout: AttemptLayout, plan: ContainerPlan, why: str) -> ContainerRecord:
    return ContainerRecord(
        name=plan.name,
        state=termination.not_started(plan.name, why, time.time()),
        last_state=None,
        restart_count=0,
        container_id="",
        log_path=layout.log_path(plan.name, 0),
        started=False,
        ready=False,
    )
