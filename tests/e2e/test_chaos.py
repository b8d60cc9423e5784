"""Two minutes of random faults, the same ones in each run; `make chaos` goes on for an hour.

What is asked here no slow machine can answer wrongly: that each pod ran once, that none is Failed
which did its work, and that nothing is left.
"""

from __future__ import annotations

from tests.chaos import __main__ as chaos
from tests.chaos.faults import FAULTS
from tests.labs import small_lab_name

_SEED = 7
# Whether these really kill a job depends on the clock: an ill home, a slurmctld that forgets.
_UNCERTAIN = ("home-full", "home-late", "home-readonly", "home-stalled", "slurmctld-killed")


def test_whatever_dies_each_pod_runs_once_and_nothing_is_left() -> None:
    arguments = ["--minutes", "2", "--seed", str(_SEED), "--lab", small_lab_name()]
    only = [name for name in FAULTS if name not in _UNCERTAIN]
    assert chaos.main([*arguments, "--only", *only]) == 0
