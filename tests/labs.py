"""Which lab the tests run in: one of their own, beside a demo's and whatever runs in that.

Where pytest-xdist runs the tests in several processes, each has its own lab, so that whatever a
test does to its cluster is seen by the tests of its own process alone.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from bootstrap.lab import control
from bootstrap.lab.layout import DEFAULT_NAME, Lab

_RUN = os.environ.get("HPK_TEST_LAB", f"{DEFAULT_NAME}-tests")
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
_SMALL = "-t"


def lab_of(worker: str) -> str:
    """The lab of one of pytest-xdist's workers."""
    return f"{_RUN}-{worker}"


LAB = lab_of(_WORKER) if _WORKER else _RUN
"""One that is not up is brought up, and down again in the end."""

MAY_BE_KEPT = not _WORKER
"""Whether somebody may have brought up a lab of this name, who wants it to stay."""


class Silent:
    """A reporter that reports to nobody."""

    def step(self, name: str, text: str) -> None:
        pass

    def done(self, name: str, text: str) -> None:
        pass


def small_lab_name() -> str:
    """A new name for a lab that one test breaks."""
    return f"{LAB}{_SMALL}{secrets.token_hex(3)}"


def take_down_all_of(worker: str) -> None:
    """Take down what labs a worker has left."""
    lab = Lab(name=lab_of(worker)).state
    for state in (lab, *lab.parent.glob(f"{lab.name}{_SMALL}??????")):
        if state.exists():
            asyncio.run(control.down(state.name))
