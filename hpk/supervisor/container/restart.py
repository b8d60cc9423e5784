"""Whether and when a container starts again. Pure.

Source: kubernetes pkg/kubelet/kuberuntime (ShouldContainerBeRestarted, backoff 10 s to 5 min).
"""

from __future__ import annotations

from typing import Optional

from hpk.model.plan import RestartPolicy

_FIRST_BACKOFF_S = 10.0
_MAX_BACKOFF_S = 300.0
_RESET_AFTER_S = 600.0


def should_restart(policy: RestartPolicy, exit_code: int) -> bool:
    """Whether a container that ended with this code starts again."""
    if policy is RestartPolicy.ALWAYS:
        return True
    return policy is RestartPolicy.ON_FAILURE and exit_code != 0


def next_backoff_s(previous_s: Optional[float], ran_s: float) -> float:
    """The wait before the next start; the first restart, and the first after a long run, has none.

    :param previous_s: before the last one, None where there was none.
    """
    if previous_s is None or ran_s >= _RESET_AFTER_S:
        return 0.0
    return min(max(previous_s * 2, _FIRST_BACKOFF_S), _MAX_BACKOFF_S)
