"""Whether and when a container starts again. Pure.

Source: kubernetes pkg/kubelet/kuberuntime (ShouldContainerBeRestarted, backoff 10 s to 5 min).
"""

from __future__ import annotations

from hpk.model.plan import RestartPolicy

_FIRST_BACKOFF_S = 10.0
_MAX_BACKOFF_S = 300.0
_RESET_AFTER_S = 600.0


def should_restart(policy: RestartPolicy, exit_code: int) -> bool:
    """Whether a container that ended with this code starts again."""
    if policy is RestartPolicy.ALWAYS:
        return True
    return policy is RestartPolicy.ON_FAILURE and exit_code != 0


def next_backoff_s(previous_s: float, ran_s: float) -> float:
    """The wait before the next start; ``previous_s`` is 0 before the first restart."""
    if previous_s <= 0 or ran_s >= _RESET_AFTER_S:
        return _FIRST_BACKOFF_S
    return min(previous_s * 2, _MAX_BACKOFF_S)
