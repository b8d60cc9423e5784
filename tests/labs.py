"""Which lab the tests run in: one of their own, beside a demo's and whatever runs in that."""

from __future__ import annotations

import os

from bootstrap.lab.layout import DEFAULT_NAME

LAB = os.environ.get("HPK_TEST_LAB", f"{DEFAULT_NAME}-tests")
"""One that is not up is brought up, and down again in the end."""


class Silent:
    """A reporter that reports to nobody."""

    def step(self, name: str, text: str) -> None:
        pass

    def done(self, name: str, text: str) -> None:
        pass
