"""What the PLEG does where Slurm, or our reading of it, fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

import pytest

from hpk.journal import Attempt
from hpk.model.errors import TransientError
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation
from hpk.model.placement import Placement
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg

POD = PodRef("ns", "db", PodUid("0a1b"))
ATTEMPT = Attempt(
    pod=POD, nonce=Nonce("0" * 16), intent_at_s=0.0, placement=Placement(SlurmJobId(7))
)


class Slurm:
    """Answers with this error, or with nothing."""

    error: Exception | None = None
    look_cost_s = 0.0

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        if self.error is not None:
            raise self.error
        return {}


@pytest.mark.parametrize("error", [TransientError("down"), OSError(7, "E2BIG"), ValueError("odd")])
async def test_whatever_fails_is_a_problem_until_a_look_succeeds(
    tmp_path: Path, error: Exception
) -> None:
    slurm = Slurm()
    made = Pleg(
        slurm=cast(SlurmBackend, slurm),
        paths=HpkPaths(home=tmp_path, cache=tmp_path),
        observations=Observations(lambda uid: None),
        is_connected=lambda nonce: False,
        interval_s=2.0,
    )
    made.track(ATTEMPT)
    slurm.error = error
    await made.relist()
    assert str(error) in made.problem
    slurm.error = None
    await made.relist()
    assert made.problem == ""
