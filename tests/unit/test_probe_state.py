"""The pure parts of probes: thresholds, when they are asked, what events are told."""

from __future__ import annotations

import pytest

from hpk.model.handlers import Handler, ProbeKind, ProbePlan
from hpk.model.record import ContainerEvent
from hpk.supervisor.pod.event_notes import Notes
from hpk.supervisor.probes.probe_state import ProbeState, is_due, next_tick

PLAN = ProbePlan(Handler(exec=("true",)), success_threshold=1, failure_threshold=3)


def states(kind: ProbeKind, plan: ProbePlan, *results: bool) -> list[bool | None]:
    state = ProbeState(kind, plan)
    seen = [state.result]
    for result in results:
        state.take(result)
        seen.append(state.result)
    return seen


def test_readiness_begins_as_no_and_follows_its_thresholds() -> None:
    plan = ProbePlan(Handler(), success_threshold=2, failure_threshold=3)
    given = (True, False, True, True, False, False, True, False, False, False)
    assert states(ProbeKind.READINESS, plan, *given) == [
        *(False, False, False, False),
        *(True, True, True, True, True, True),
        False,
    ]


def test_liveness_begins_as_yes_and_fails_for_good() -> None:
    assert states(ProbeKind.LIVENESS, PLAN, False, False, True, False, False, False) == [
        *(True, True, True, True, True, True),
        False,
    ]
    state = ProbeState(ProbeKind.LIVENESS, PLAN)
    assert [state.take(False) for _ in range(3)] == [False, False, True]
    assert state.is_settled


def test_a_startup_probe_is_asked_until_it_has_decided() -> None:
    assert states(ProbeKind.STARTUP, PLAN, False, True) == [None, None, True]
    state = ProbeState(ProbeKind.STARTUP, PLAN)
    assert not is_due(state, ran_s=5, started=True)
    assert is_due(state, ran_s=5, started=False)
    assert state.take(True)
    assert not is_due(state, ran_s=5, started=False)


@pytest.mark.parametrize("kind", [ProbeKind.LIVENESS, ProbeKind.READINESS])
def test_others_wait_for_the_start_and_the_delay(kind: ProbeKind) -> None:
    state = ProbeState(kind, ProbePlan(Handler(), initial_delay_s=5))
    assert not is_due(state, ran_s=9, started=False)
    assert not is_due(state, ran_s=4.9, started=True)
    assert is_due(state, ran_s=5, started=True)


def test_ticks_go_on_from_the_first() -> None:
    assert next_tick(100.0, 10, 100.0) == 110.0
    assert next_tick(100.0, 10, 109.9) == 110.0
    assert next_tick(100.0, 10, 110.0) == 120.0
    assert next_tick(100.0, 1, 100.25) == 101.0


def event(message: str, at_s: float) -> ContainerEvent:
    return ContainerEvent("main", True, "Unhealthy", message, 1, at_s, at_s)


def test_notes_count_what_is_the_same_and_tell_it_now_and_then() -> None:
    notes = Notes()
    assert notes.add(event("a", 1000.0))
    notes.tell(1000.0)
    assert not notes.add(event("a", 1001.0))
    assert not notes.is_overdue(1009.0)
    assert notes.is_overdue(1010.0)
    assert notes.add(event("a", 1011.0))
    (told,) = notes.tell(1011.0)
    assert (told.count, told.first_at_s, told.last_at_s) == (3, 1000.0, 1011.0)
    assert notes.add(event("b", 1012.0))
    assert [item.message for item in notes.tell(1012.0)] == ["a", "b"]
    assert not notes.is_overdue(9999.0)


def test_notes_are_bounded() -> None:
    notes = Notes()
    for number in range(1000):
        notes.add(event(str(number) * 5000, float(number)))
    kept = notes.tell(0)
    assert len(kept) == 64
    assert all(len(item.message) <= 1000 for item in kept)
