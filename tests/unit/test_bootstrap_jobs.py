"""Which Slurm jobs are this home's, and that no other is ever touched."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from bootstrap.jobs import cancel_all, open_jobs
from hpk.durable import private_directory
from hpk.journal import Step, record_step
from hpk.model.errors import HpkError, TransientError
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, JobState, Partition
from hpk.model.placement import Placement
from hpk.slurm.submitting import parse_submit_output
from hpk.statefs import HpkPaths


class Queue:
    """A SlurmBackend over a dict: job id → name and state."""

    def __init__(self, jobs: dict[int, tuple[str, JobState]]) -> None:
        self.known = jobs
        self.cancelled: list[int] = []
        self.silent = False

    look_cost_s = 0.0

    async def submit(self, script: Path, *, directory: Path) -> SlurmJobId:
        raise NotImplementedError

    async def jobs(self, ids: object) -> dict[SlurmJobId, JobObservation]:
        if self.silent:
            raise TransientError("slurmctld does not answer")
        assert isinstance(ids, list)
        return {number: self._observe(number) for number in ids if number in self.known}

    async def recover(
        self, name: str, *, since_s: float, directory: Path, settle: bool = True
    ) -> SlurmJobId | None:
        answer = directory / "sbatch.out"
        if answer.exists():
            return parse_submit_output(answer.read_text())
        found = (number for number, (known, _) in self.known.items() if known == name)
        return next((SlurmJobId(number) for number in found), None)

    async def cancel(self, ids: Collection[SlurmJobId]) -> dict[SlurmJobId, HpkError]:
        if self.silent:
            raise TransientError("slurmctld does not answer")
        self.cancelled += ids
        return {}

    async def partitions(self) -> tuple[Partition, ...]:
        return ()

    async def version(self) -> str:
        return "22.05.8"

    async def kill_wait_s(self) -> int:
        return 30

    def _observe(self, number: SlurmJobId) -> JobObservation:
        name, state = self.known[number]
        return JobObservation(
            job_id=number,
            name=name,
            state=state,
            reason="Resources" if state.is_queued else "",
            nodes="",
            exit_code=None,
            signal=0,
            start_time_s=None,
            end_time_s=None,
            source="squeue",
        )


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    return HpkPaths(home=tmp_path / "a b", cache=tmp_path)


def _attempt(paths: HpkPaths, number: int, *steps: Step, job_id: int | None = None) -> str:
    """A pod with one attempt; returns its job's name."""
    pod = PodRef("default", f"pod-{number}", PodUid(f"uid-{number}"))
    nonce = Nonce(f"{number:016x}")
    private_directory(paths.pod_dir(pod.uid))
    private_directory(Path(paths.attempt(pod.uid, nonce).root))
    for step in steps:
        wanted = Placement(SlurmJobId(job_id)) if step is Step.SUBMITTED and job_id else None
        record_step(paths, pod, step, nonce=nonce, placement=wanted)
    return f"default/pod-{number}@{nonce}"


async def test_open_attempts_and_no_others_are_listed(paths: HpkPaths) -> None:
    _attempt(paths, 1, Step.INTENT, Step.SUBMITTED, job_id=11)
    _attempt(paths, 2, Step.INTENT, Step.SUBMITTED, job_id=12)
    _attempt(paths, 3, Step.INTENT, Step.SUBMITTED, Step.ENDED, job_id=13)
    _attempt(paths, 4, Step.INTENT, Step.REFUSED)
    running = _attempt(paths, 5, Step.INTENT)  # sbatch answered, nobody lived to write it down
    queue = Queue(
        {
            11: ("x", JobState.RUNNING),
            12: ("x", JobState.COMPLETED),
            13: ("x", JobState.RUNNING),
            15: (running, JobState.PENDING),
            99: ("somebody-elses", JobState.RUNNING),
        }
    )
    found = {job.job_id: job for job in await open_jobs(paths, queue)}
    assert set(found) == {11, 15}
    assert (found[SlurmJobId(11)].pod, found[SlurmJobId(11)].is_queued) == ("default/pod-1", False)
    assert (found[SlurmJobId(15)].reason, found[SlurmJobId(15)].is_queued) == ("Resources", True)


async def test_the_id_that_sbatch_printed_counts(paths: HpkPaths) -> None:
    _attempt(paths, 1, Step.INTENT)
    layout = paths.attempt(PodUid("uid-1"), Nonce(f"{1:016x}"))
    Path(layout.root, "sbatch.out").write_text("21\n")
    (job,) = await open_jobs(paths, Queue({21: ("renamed", JobState.PENDING)}))
    assert job.job_id == 21


async def test_exactly_ours_are_cancelled(paths: HpkPaths) -> None:
    _attempt(paths, 1, Step.INTENT, Step.SUBMITTED, job_id=11)
    _attempt(paths, 2, Step.INTENT, Step.SUBMITTED, Step.ENDED, job_id=12)
    queue = Queue({11: ("x", JobState.RUNNING), 12: ("x", JobState.RUNNING)})
    queue.known[99] = ("x", JobState.RUNNING)
    cancelled, errors = await cancel_all(paths, queue)
    assert queue.cancelled == [11] == [job.job_id for job in cancelled]
    assert errors == ()


async def test_an_id_that_is_another_jobs_now_is_left_alone(paths: HpkPaths) -> None:
    _attempt(paths, 1, Step.INTENT, Step.SUBMITTED, job_id=11)
    queue = Queue({11: (f"default/other@{9:016x}", JobState.RUNNING)})
    assert await cancel_all(paths, queue) == ((), ())
    assert queue.cancelled == []


async def test_slurms_silence_is_told(paths: HpkPaths) -> None:
    _attempt(paths, 1, Step.INTENT, Step.SUBMITTED, job_id=11)
    queue = Queue({11: ("x", JobState.RUNNING)})
    queue.silent = True
    (job,) = await open_jobs(paths, queue)
    assert job.state == "UNKNOWN"
    cancelled, errors = await cancel_all(paths, queue)
    assert cancelled == ()
    assert "job 11 (default/pod-1)" in errors[0]
