"""When the channel dials a kubelet that has gone."""

from __future__ import annotations

import pytest

from hpk.supervisor.link.redial import compute_pause_s


def _tries(until_s: float, chance: float) -> list[float]:
    """Seconds since the loss of each try, the last at or after ``until_s``."""
    tries = [0.0]
    while tries[-1] < until_s:
        tries.append(tries[-1] + compute_pause_s(tries[-1], chance))
    return tries


@pytest.mark.parametrize("away_s", [0.5, 1.3, 2.9, 7, 13, 26, 52, 200])
def test_a_kubelet_that_is_back_is_dialled_within_a_quarter_of_the_time_it_was_away(
    away_s: float,
) -> None:
    assert _tries(away_s, chance=0)[-1] <= away_s + max(away_s / 4, 0.1)


@pytest.mark.parametrize("chance", [0, 1])
def test_a_kubelet_that_stays_away_is_dialled_twice_a_minute_at_most(chance: float) -> None:
    within_the_first_hour = _tries(3600, chance)
    assert len(within_the_first_hour) < 200
    assert len(_tries(7200, chance)) - len(within_the_first_hour) <= 120


def test_pods_that_lost_the_same_kubelet_do_not_all_dial_at_once() -> None:
    assert compute_pause_s(100, chance=1) == compute_pause_s(100, chance=0) / 2
