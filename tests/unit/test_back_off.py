"""Pauses that double."""

from __future__ import annotations

from kubelet.back_off import doubled_s


def test_a_pause_doubles_up_to_its_most() -> None:
    assert [doubled_s(n, first_s=10.0, most_s=300.0) for n in range(6)] == [
        10.0,
        20.0,
        40.0,
        80.0,
        160.0,
        300.0,
    ]


def test_the_number_of_failures_has_no_limit() -> None:
    assert doubled_s(5000, first_s=5.0, most_s=300.0) == 300.0
