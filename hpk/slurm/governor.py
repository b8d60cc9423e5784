"""How often Slurm may be asked: never more than a share of what an answer costs it. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable

COST_FACTOR = 10
"""At most a tenth of the time goes into looking."""
_BURST = 2.0


class Governor:
    """A token bucket whose pace follows the cost of a look.

    Two looks may follow each other closely, so that what has just happened is seen soon; in the
    long run there is one for each interval: the configured one, or ten times what the last look
    took, whichever is longer. Nine tenths of the time nobody looks at all.
    """

    def __init__(self, interval_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._tokens = _BURST
        self._counted_s = clock()
        self._ended_s = float("-inf")
        self.cost_s = 0.0
        """What the last look took."""

    def pause_s(self) -> float:
        """How long the next look must wait."""
        now_s = self._clock()
        self._refill(now_s)
        for_token_s = max(0.0, 1.0 - self._tokens) * self._pace_s()
        for_cost_s = self._ended_s + COST_FACTOR * self.cost_s - now_s
        return max(0.0, for_token_s, for_cost_s)

    def looked(self, cost_s: float) -> None:
        """A look has ended."""
        now_s = self._clock()
        self._refill(now_s)
        self._tokens -= 1.0
        self._ended_s, self.cost_s = now_s, cost_s

    def _pace_s(self) -> float:
        return max(self._interval_s, COST_FACTOR * self.cost_s, 1e-3)

    def _refill(self, now_s: float) -> None:
        self._tokens = min(_BURST, self._tokens + (now_s - self._counted_s) / self._pace_s())
        self._counted_s = now_s
