"""How often Slurm is asked."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from hpk.slurm.governor import COST_FACTOR, Governor


class Clock:
    """Time as the test has it."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def looks(governor: Governor, clock: Clock, cost_s: float, until_s: float) -> list[float]:
    """When looks begin if somebody always wants one."""
    began: list[float] = []
    while True:
        clock.now_s += governor.pause_s()
        if clock.now_s >= until_s:
            return began
        began.append(clock.now_s)
        clock.now_s += cost_s
        governor.looked(cost_s)


def test_two_at_once_and_then_one_for_each_interval() -> None:
    clock = Clock()
    began = looks(Governor(2.0, clock=clock), clock, 0.01, until_s=110.0)
    assert [round(at_s - 100) for at_s in began] == [0, 0, 2, 4, 6, 8]


def test_a_costly_look_is_taken_a_tenth_of_the_time() -> None:
    clock = Clock()
    began = looks(Governor(2.0, clock=clock), clock, 3.0, until_s=400.0)
    assert all(b - a >= COST_FACTOR * 3.0 for a, b in itertools.pairwise(began))
    assert len(began) >= 8


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 20)), max_size=30))
def test_whatever_it_costs_and_whenever_it_is_wanted(asked: list[tuple[float, float]]) -> None:
    clock = Clock()
    governor = Governor(2.0, clock=clock)
    spent_s = 0.0
    for wait_s, cost_s in asked:
        clock.now_s += wait_s
        clock.now_s += governor.pause_s()
        clock.now_s += cost_s
        spent_s += cost_s
        governor.looked(cost_s)
    clock.now_s += governor.pause_s()
    # The first look may be at once; each is paid for before the next.
    assert spent_s * COST_FACTOR <= (clock.now_s - 100.0) * 1.001 + 1e-6
