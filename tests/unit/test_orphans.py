"""What becomes of a pod that no control plane gives a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from hpk.model import codec
from hpk.model.layout import AttemptLayout
from hpk.model.plan import JobSpec
from hpk.model.record import StopCause
from hpk.supervisor.base.loop import Loop
from hpk.supervisor.pod.reasons_to_stop import ReasonsToStop
from hpk.supervisor.pod.stop_request import Found

# A Job's pod, which goes on for ever once it has begun.
SPEC = Path(__file__).parents[1] / "golden" / "job.pod.json"


class Files:
    """The part of a loop that looks at files: at once."""

    def ask_files(
        self,
        work: Callable[[], Found],
        then: Callable[[Found | None], None],
        *,
        instead: Found | None,
        timeout_s: float,
    ) -> None:
        then(work())


@pytest.mark.parametrize(
    ("silent_s", "has_begun", "stops"),
    [(4000, False, True), (3000, False, False), (4000, True, False), (10**6, True, False)],
)
def test_work_that_has_begun_goes_on_and_what_waits_for_its_bundle_does_not(
    tmp_path: Path, silent_s: int, has_begun: bool, stops: bool
) -> None:
    spec = codec.loads(JobSpec, SPEC.read_text())
    began = time.monotonic() - silent_s
    layout = AttemptLayout(str(tmp_path))
    reasons = ReasonsToStop(spec, layout, began, cast(Loop, Files()))
    if has_begun:
        reasons.begin()
    found = [reason.cause for reason in reasons.tick(is_welcome=False)]
    assert found == ([StopCause.ORPHANED] if stops else [])
