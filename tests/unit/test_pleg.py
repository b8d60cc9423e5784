"""What the PLEG does where Slurm, or our reading of it, fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

import pytest

from hpk.durable import private_directory
from hpk.journal import Attempt
from hpk.model import codec
from hpk.model.errors import TransientError
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.model.placement import Placement
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg
from kubelet.shared_files import SharedFiles
from tests.records import a_record

POD = PodRef("ns", "db", PodUid("0a1b"))
ATTEMPT = Attempt(
    pod=POD, nonce=Nonce("0" * 16), intent_at_s=0.0, placement=Placement(SlurmJobId(7))
)


class Slurm:
    """Answers with this error, or with nothing."""

    error: Exception | None = None
    name = ""
    command = ""
    look_cost_s = 0.0

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        if self.error is not None:
            raise self.error
        if not self.name:
            return {}
        job = JobObservation(
            job_id=SlurmJobId(7),
            name=self.name,
            state=JobState.RUNNING,
            reason="",
            nodes="n1",
            exit_code=None,
            signal=0,
            start_time_s=1.0,
            end_time_s=None,
            source="squeue",
            command=self.command,
        )
        return {job.job_id: job}


def a_pleg(directory: Path, slurm: Slurm, observations: Observations) -> Pleg:
    """A PLEG without channels."""
    return Pleg(
        slurm=cast(SlurmBackend, slurm),
        paths=HpkPaths(home=directory, cache=directory),
        files=SharedFiles(directory),
        observations=observations,
        is_connected=lambda nonce: False,
        missing=lambda record: None,
        interval_s=2.0,
    )


@pytest.mark.parametrize("error", [TransientError("down"), OSError(7, "E2BIG"), ValueError("odd")])
async def test_whatever_fails_is_a_problem_until_a_look_succeeds(
    tmp_path: Path, error: Exception
) -> None:
    slurm = Slurm()
    made = a_pleg(tmp_path, slurm, Observations(lambda uid: None))
    made.track(ATTEMPT)
    slurm.error = error
    await made.relist()
    assert str(error) in made.problem
    slurm.error = None
    await made.relist()
    assert made.problem == ""


async def test_a_renamed_job_is_seen_and_another_that_has_its_id_is_not(tmp_path: Path) -> None:
    slurm, observations = Slurm(), Observations(lambda uid: None)
    made = a_pleg(tmp_path, slurm, observations)
    made.track(ATTEMPT)
    slurm.name = "renamed-by-user"
    slurm.command = f"/home/a/.hpk/pods/u/attempts/{ATTEMPT.nonce}/script.sh"
    await made.relist()
    seen = observations.get(ATTEMPT.nonce)
    assert seen.job is not None
    assert seen.absent_since_s is None
    slurm.command = "/home/a/simulate.sh"
    await made.relist()
    assert observations.get(ATTEMPT.nonce).absent_since_s is not None


async def test_the_record_of_a_pod_of_before_is_read_before_slurm_is_believed(
    tmp_path: Path,
) -> None:
    observations = Observations(lambda uid: None)
    made = a_pleg(tmp_path, Slurm(), observations)
    layout = HpkPaths(home=tmp_path, cache=tmp_path).attempt(POD.uid, ATTEMPT.nonce)
    private_directory(layout.root)
    record = a_record(uid=POD.uid, nonce=ATTEMPT.nonce, containers=(), init_containers=())
    Path(layout.record).write_text(codec.dumps(record))
    made.track(ATTEMPT)
    await made.relist()
    assert observations.get(ATTEMPT.nonce).record == record
