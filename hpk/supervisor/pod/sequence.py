"""In which order a pod's containers begin and end. Pure.

Source: kubernetes pkg/kubelet/kuberuntime (computeInitContainerActions, termination_order.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from hpk.model.frozen import dataclass
from hpk.model.plan import ContainerPlan, RestartPolicy


@dataclass(frozen=True)
class InitView:
    """An init container as far as the order is concerned.

    :param begun: it has had its turn.
    :param started: its program has run at least once.
    :param done: it has ended and does not start again; ``failed``: and not well.
    """

    is_sidecar: bool
    begun: bool
    started: bool
    done: bool
    failed: bool


class Turn(Enum):
    """Whose turn it is."""

    WAIT = 1
    INIT = 2
    MAIN = 3
    FAILED = 4


def next_turn(inits: Sequence[InitView]) -> tuple[Turn, int]:
    """What happens next, and to which init container.

    One follows the other: an init container when it has ended well, a sidecar when it has started.
    """
    for index, view in enumerate(inits):
        if not view.begun:
            return Turn.INIT, index
        if view.is_sidecar:
            if not view.started:
                return Turn.WAIT, index
        elif view.failed:
            return Turn.FAILED, index
        elif not view.done:
            return Turn.WAIT, index
    return Turn.MAIN, 0


def init_restart_policy(plan: ContainerPlan, policy: RestartPolicy) -> RestartPolicy:
    """When an init container starts again: a sidecar always, another one until it succeeds."""
    if plan.restart_always:
        return RestartPolicy.ALWAYS
    return RestartPolicy.NEVER if policy is RestartPolicy.NEVER else RestartPolicy.ON_FAILURE
