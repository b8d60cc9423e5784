"""A short run of the frame layers' fuzzer; `python -m tests.fuzz` is the long one."""

from __future__ import annotations

import pytest

from tests.fuzz.world import LAYERS, try_one


@pytest.mark.parametrize("layer", LAYERS)
async def test_sessions_that_went_wrong_in_all_ways_break_no_rule(layer: str) -> None:
    for seed in range(150):
        await try_one(layer, seed)
