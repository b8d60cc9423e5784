"""The gate before Slurm where it takes no more for now: one Pod tries, the others wait. No I/O.

A submit limit holds for all Pods of an account, a QOS and a partition, and a controller that does
not answer for all there are: a thousand of them must not ask it a thousand times. The oldest has
the turn to try; when Slurm takes it the next follow, twice as many each time, until nobody waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

from hpk.model.errors import TransientError
from hpk.model.ids import PodUid

PAUSE_FIRST_S = 1.0
PAUSE_MOST_S = 60.0
SHOWS_UP_S = 10.0
"""How long one whose turn it is may take to come; then it is the next one's."""


class NotYourTurnError(TransientError):
    """Slurm takes no more for now, as it told another Pod; wait until you are called."""


@dataclass(slots=True)
class _Closed:
    """A gate that is closed.

    :param waiting: who waits, and by what it is ordered.
    :param called: who has the turn, and until when it must have come (monotonic seconds).
    :param trying: whose submission is under way.
    """

    refusal: TransientError
    not_before_s: float
    pause_s: float = PAUSE_FIRST_S
    at_once: int = 1
    waiting: dict[PodUid, tuple[str, int]] = field(default_factory=dict)
    called: dict[PodUid, float] = field(default_factory=dict)
    trying: set[PodUid] = field(default_factory=set)

    def is_open_for(self, uid: PodUid, now_s: float) -> bool:
        """Whether it has the turn, or could have it now."""
        return uid in self.called or uid in self.trying or uid in self.next(now_s)

    def next(self, now_s: float) -> list[PodUid]:
        """Those whose turn it is besides those who have it."""
        room = self.at_once - len(self.called) - len(self.trying)
        if room <= 0 or now_s < self.not_before_s:
            return []
        others = self.waiting.keys() - self.called.keys() - self.trying
        return heapq.nsmallest(room, others, key=self.waiting.__getitem__)

    def forget(self, uid: PodUid) -> None:
        """It waits no more."""
        self.waiting.pop(uid, None)
        self.called.pop(uid, None)
        self.trying.discard(uid)

    def drop_absent(self, now_s: float) -> None:
        """Those who were called and did not come."""
        for uid in [uid for uid, until_s in self.called.items() if now_s >= until_s]:
            self.forget(uid)


class SubmitGate:
    """All gates, by the scope they hold for. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._closed: dict[Hashable, _Closed] = {}
        self._numbers = itertools.count()

    def enter(
        self, uid: PodUid, scopes: Collection[Hashable], created: str, *, now_s: float
    ) -> None:
        """Pass, or wait.

        :param scopes: all that the Pod belongs to.
        :param created: the Pod's creationTimestamp.
        :raises NotYourTurnError: what Slurm said to whoever tried last.
        """
        gates = [self._closed[scope] for scope in scopes if scope in self._closed]
        for gate in gates:
            gate.waiting.setdefault(uid, (created, next(self._numbers)))
        shut = next((gate for gate in gates if not gate.is_open_for(uid, now_s)), None)
        for gate in gates:
            gate.called.pop(uid, None)
            if shut is None:
                gate.trying.add(uid)
            elif gate is not shut:
                gate.waiting.pop(uid, None)  # it comes again when the other lets it
        if shut is not None:
            raise NotYourTurnError(shut.refusal.message, reason=shut.refusal.reason)

    def accepted(self, uid: PodUid, *, now_s: float) -> None:
        """Slurm took the Pod."""
        for scope, gate in list(self._closed.items()):
            if uid in gate.trying:
                gate.not_before_s, gate.pause_s = now_s, PAUSE_FIRST_S
                gate.at_once *= 2
            gate.forget(uid)
            if not gate.waiting:
                del self._closed[scope]

    def refused(
        self, uid: PodUid, scope: Hashable, error: TransientError, created: str, *, now_s: float
    ) -> None:
        """Slurm did not take it, nor would it another of this scope."""
        gate = self._closed.get(scope)
        if gate is None:
            gate = self._closed[scope] = _Closed(error, now_s)
        elif uid in gate.trying:
            gate.pause_s = min(gate.pause_s * 2, PAUSE_MOST_S)
        self.forget(uid)
        gate.refusal, gate.at_once = error, 1
        gate.not_before_s = now_s + gate.pause_s
        gate.called.clear()
        gate.waiting[uid] = (created, next(self._numbers))

    def room_was_made(self, *, now_s: float) -> None:
        """A job has ended: whoever is next may try soon."""
        for gate in self._closed.values():
            gate.pause_s = PAUSE_FIRST_S
            gate.not_before_s = min(gate.not_before_s, now_s + PAUSE_FIRST_S)

    def forget(self, uid: PodUid) -> None:
        """The Pod waits no more."""
        for gate in self._closed.values():
            gate.forget(uid)

    def call(self, *, now_s: float) -> tuple[list[PodUid], float | None]:
        """Whose turn it is now, each told once, and when to ask again (None: nobody waits)."""
        called: list[PodUid] = []
        again_s: list[float] = []
        for gate in self._closed.values():
            gate.drop_absent(now_s)
            new = gate.next(now_s)
            gate.called |= dict.fromkeys(new, now_s + SHOWS_UP_S)
            called += new
            again_s += gate.called.values()
            if gate.waiting and now_s < gate.not_before_s:
                again_s.append(gate.not_before_s)
        return called, min(again_s, default=None)
