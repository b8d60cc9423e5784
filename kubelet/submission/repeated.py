"""What Slurm told each Pod that it did not take, and when that Pod may ask again. No I/O.

Refusals in words that nobody knows are transient, until they have come often enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpk.model.errors import PermanentError, TransientError
from hpk.model.ids import PodUid
from hpk.model.plan.pod import PodPlan
from hpk.slurm.refusals import REFUSED, UNKNOWN_WORDS

TIMES = 5
OVER_S = 300.0
"""A no that came so often, over so long, and always in the same words, is one for good."""

_PAUSE_FIRST_S = 0.9
_PAUSE_MOST_S = 55.0
"""A little less than a pod worker waits of itself: only who was woken before asks too early."""
_NUMBER = re.compile(r"[0-9]+")


@dataclass(slots=True)
class _Told:
    plan: PodPlan
    error: TransientError
    words: str
    first_s: float
    not_before_s: float
    pause_s: float = _PAUSE_FIRST_S
    times: int = 1


class RepeatedRefusals:
    """What each Pod was told last."""

    def __init__(self) -> None:
        self._by_pod: dict[PodUid, _Told] = {}

    def too_early(self, uid: PodUid, plan: PodPlan, *, now_s: float) -> TransientError | None:
        """What was said to this very plan a moment ago, and would be said again.

        :param now_s: monotonic seconds.
        """
        told = self._by_pod.get(uid)
        if told is None or now_s >= told.not_before_s or told.plan != plan:
            return None
        return told.error

    def judge(
        self, uid: PodUid, plan: PodPlan, error: TransientError, *, now_s: float
    ) -> TransientError | PermanentError:
        """The error itself, or what it amounts to by now."""
        words = _NUMBER.sub("#", error.message)
        told = self._by_pod.get(uid)
        if told is None or told.words != words:
            self._by_pod[uid] = _Told(plan, error, words, now_s, now_s + _PAUSE_FIRST_S)
            return error
        told.times += 1
        told.pause_s = min(told.pause_s * 2, _PAUSE_MOST_S)
        told.plan, told.error, told.not_before_s = plan, error, now_s + told.pause_s
        settled = told.times >= TIMES and now_s - told.first_s >= OVER_S
        if error.reason != UNKNOWN_WORDS or not settled:
            return error
        self.forget(uid)
        return PermanentError(error.message, reason=REFUSED)

    def forget(self, uid: PodUid) -> None:
        """The Pod was submitted, or is gone."""
        self._by_pod.pop(uid, None)
