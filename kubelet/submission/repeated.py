"""Refusals in words that nobody knows: transient, until they have come often enough. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpk.model.errors import PermanentError, TransientError
from hpk.model.ids import PodUid
from hpk.slurm.refusals import REFUSED, UNKNOWN_WORDS

TIMES = 5
OVER_S = 300.0
"""A no that came so often, over so long, and always in the same words, is one for good."""

_NUMBER = re.compile(r"[0-9]+")


@dataclass(slots=True)
class _Repeated:
    words: str
    first_s: float
    times: int = 0


class RepeatedRefusals:
    """Counts what each Pod was told."""

    def __init__(self) -> None:
        self._by_pod: dict[PodUid, _Repeated] = {}

    def judge(
        self, uid: PodUid, error: TransientError, *, now_s: float
    ) -> TransientError | PermanentError:
        """The error itself, or what it amounts to by now.

        :param now_s: monotonic seconds.
        """
        if error.reason != UNKNOWN_WORDS:
            return error  # Slurm said something else in between, or nothing: neither counts
        words = _NUMBER.sub("#", error.message)
        told = self._by_pod.get(uid)
        if told is None or told.words != words:
            told = self._by_pod[uid] = _Repeated(words, now_s)
        told.times += 1
        if told.times < TIMES or now_s - told.first_s < OVER_S:
            return error
        self.forget(uid)
        return PermanentError(error.message, reason=REFUSED)

    def forget(self, uid: PodUid) -> None:
        """The Pod was submitted, or is gone."""
        self._by_pod.pop(uid, None)
