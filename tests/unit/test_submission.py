"""What becomes of a submission that Slurm does not take, and of those that wait behind it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hpk.durable import private_directory
from hpk.journal import Attempt, PodJournal, begin_attempt, read_pod
from hpk.model.errors import HpkError, PermanentError, TransientError
from hpk.model.ids import PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, Partition
from hpk.model.layout import AttemptLayout
from hpk.model.plan.job_spec import SupervisorSettings
from hpk.statefs import HpkPaths
from kubelet.shared_files import SharedFiles
from kubelet.submission import attempt_files, gate
from kubelet.submission.attempt_files import remove_attempt
from kubelet.submission.gate import NotYourTurnError
from kubelet.submission.repeated import OVER_S, TIMES, RepeatedRefusals
from kubelet.submission.slots import Slots
from kubelet.submission.submitter import Submitted, Submitter
from tests.planning import a_pod, plan

ONE = PodUid("0a1b")
PLAN = plan(a_pod())
LIMIT = TransientError("QOSMaxSubmitJobPerUserLimit", reason="SubmitLimit")


def odd(number: int, reason: str = "Refused") -> TransientError:
    """A refusal whose number alone differs."""
    return TransientError(f"lua: odd thing {number}", reason=reason)


def test_unknown_words_are_final_only_when_they_come_again_and_again() -> None:
    refusals = RepeatedRefusals()
    for number in range(TIMES - 1):
        error = refusals.judge(ONE, PLAN, odd(number), now_s=OVER_S * number)
        assert isinstance(error, TransientError)
    settled = refusals.judge(ONE, PLAN, odd(9), now_s=OVER_S * TIMES)
    assert isinstance(settled, PermanentError)
    assert (settled.reason, settled.message) == ("SlurmRefused", "lua: odd thing 9")


def test_they_are_not_final_within_minutes_or_when_others_come_between() -> None:
    refusals = RepeatedRefusals()
    for number in range(TIMES * 2):
        error = refusals.judge(ONE, PLAN, odd(number), now_s=float(number))
        assert isinstance(error, TransientError)
    refusals.judge(ONE, PLAN, TransientError("else", reason="Refused"), now_s=OVER_S)
    assert isinstance(refusals.judge(ONE, PLAN, odd(1), now_s=OVER_S * 2), TransientError)
    known = odd(1, reason="NotNow")
    assert refusals.judge(ONE, PLAN, known, now_s=OVER_S * 9) is known


def test_who_was_refused_is_not_asked_about_again_at_once() -> None:
    refusals = RepeatedRefusals()
    error = odd(1, reason="NotNow")
    refusals.judge(ONE, PLAN, error, now_s=0.0)
    assert refusals.too_early(ONE, PLAN, now_s=0.5) is error
    changed = plan(a_pod(annotations={"slurm-job.hpk.io/flags": "--time=7"}))
    assert refusals.too_early(ONE, changed, now_s=0.5) is None
    assert refusals.too_early(ONE, PLAN, now_s=60.0) is None


async def test_of_those_who_wait_the_oldest_pod_comes_first() -> None:
    slots, came = Slots(1), []

    async def come(created: str) -> None:
        async with slots.taken(created):
            came.append(created)
            await asyncio.sleep(0)

    async with slots.taken("0"):
        waiting = [asyncio.create_task(come(created)) for created in ("3", "1", "4", "2")]
        await asyncio.sleep(0)
        waiting[2].cancel()
    await asyncio.wait(waiting)
    assert came == ["1", "2", "3"]
    async with slots.taken("5"):
        pass


class Slurm:
    """Takes so many jobs, and says no to the others."""

    look_cost_s = 0.0

    def __init__(self, room: int, error: HpkError = LIMIT) -> None:
        self.room = room
        self.error = error
        self.calls: list[Path] = []
        self.recovered: SlurmJobId | None = None

    async def submit(self, script: Path, *, directory: Path) -> SlurmJobId:
        self.calls.append(script)
        await asyncio.sleep(0)
        if self.room == 0:
            raise self.error
        self.room -= 1
        return SlurmJobId(len(self.calls))

    async def recover(
        self, name: str, *, since_s: float, directory: Path, settle: bool = True
    ) -> SlurmJobId | None:
        return self.recovered

    async def kill_wait_s(self) -> int:
        return 30

    async def jobs(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, JobObservation]:
        raise NotImplementedError

    async def cancel(self, ids: Collection[SlurmJobId]) -> Mapping[SlurmJobId, HpkError]:
        raise NotImplementedError

    async def partitions(self) -> tuple[Partition, ...]:
        raise NotImplementedError

    async def version(self) -> str:
        raise NotImplementedError


class Kubelet:
    """A submitter and workers that do as they are called."""

    def __init__(self, directory: Path, slurm: Slurm, files: SharedFiles | None = None) -> None:
        self.slurm = slurm
        self.paths = HpkPaths(home=directory / "home", cache=directory)
        private_directory(self.paths.pods)
        self.submitter = Submitter(
            paths=self.paths,
            files=files or SharedFiles(directory),
            slurm=slurm,
            settings=SupervisorSettings("", "", "", 1, "/tmp", ()),
            zipapp=Path("/x.pyz"),
            call=self._called,
        )
        self.jobs: dict[PodUid, SlurmJobId] = {}
        self.waiting: list[PodUid] = []
        self.called: list[PodUid] = []
        self.comes = True
        self.entered = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, uid: PodUid) -> None:
        """One try of one pod's worker."""
        pod = PodRef("ns", f"p-{uid}", uid)
        try:
            attempt = await self.submitter.submit(pod, PLAN, created=uid, under_way=self.under_way)
        except NotYourTurnError:
            self.waiting.append(uid)
        else:
            assert attempt.job_id is not None
            self.jobs[uid] = attempt.job_id

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[Submitted]:
        """As a pod's state counts its submissions."""
        self.entered += 1
        yield self.told

    def told(self, journal: PodJournal, token: str) -> None:
        """What a pod's state is told is what it would read."""
        assert journal == read_pod(self.paths, journal.pod.uid)
        layout = self.paths.attempt(journal.pod.uid, journal.attempts[-1].nonce)
        assert token == Path(layout.token).read_text()

    def _called(self, uid: PodUid) -> None:
        self.called.append(uid)
        if self.comes:
            self._tasks.add(asyncio.create_task(self.submit(uid)))

    async def close(self) -> None:
        """Nobody waits any more."""
        self.comes = False
        for uid in {*self.waiting, ONE}:
            self.submitter.forget(uid)
        await asyncio.gather(*self._tasks)
        for uid in self.waiting:
            self.submitter.forget(uid)

    async def until(self, jobs: int) -> None:
        """Wait until so many pods have a job."""
        while len(self.jobs) < jobs:
            await asyncio.sleep(0.01)


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    made = Kubelet(tmp_path, Slurm(room=0))
    yield made
    await made.close()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that a test can wait for."""
    monkeypatch.setattr(gate, "PAUSE_FIRST_S", 0.02)
    monkeypatch.setattr(gate, "PAUSE_MOST_S", 0.05)


def uids(count: int) -> list[PodUid]:
    """So many, in the order of their age."""
    return [PodUid(f"{number:04d}") for number in range(count)]


async def test_at_a_submit_limit_one_tries_and_the_others_wait(kubelet: Kubelet) -> None:
    slurm = kubelet.slurm
    await asyncio.gather(*(kubelet.submit(uid) for uid in uids(100)))
    assert len(kubelet.waiting) == 100
    # Those that were under way when the first was refused, and nobody else.
    assert len(slurm.calls) <= 8
    tried = len(slurm.calls)
    assert kubelet.entered == tried, "who waits reads no file"
    for uid in uids(100):  # whatever wakes a worker
        await kubelet.submit(uid)
    assert kubelet.entered == tried
    assert len(slurm.calls) == tried


async def test_a_limit_that_goes_lets_all_in_oldest_first(kubelet: Kubelet, brisk: None) -> None:
    slurm = kubelet.slurm
    await asyncio.gather(*(kubelet.submit(uid) for uid in reversed(uids(60))))
    slurm.room = 60
    await kubelet.until(60)
    assert sorted(kubelet.jobs) == uids(60)
    assert kubelet.called[-10:] == uids(60)[-10:]
    refused = len(slurm.calls) - 60
    assert refused <= 60


async def test_a_pod_that_waits_keeps_one_attempt_however_often_it_is_refused(
    kubelet: Kubelet, brisk: None
) -> None:
    slurm = kubelet.slurm
    await kubelet.submit(ONE)
    while len(slurm.calls) < 20:
        await asyncio.sleep(0.01)
    directory = kubelet.paths.pod_dir(ONE)
    files = [name for _, _, names in os.walk(directory) for name in names]
    assert sorted(set(files)) == sorted(files)
    assert set(files) <= {"journal.jsonl", "pod.json", "token", "script.sh"}
    assert len(set(slurm.calls)) == 1
    assert len(kubelet.paths.journal(ONE).read_text().splitlines()) <= 2
    slurm.room = 1
    await kubelet.until(1)
    journal = read_pod(kubelet.paths, ONE)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.job_id == kubelet.jobs[ONE]


async def test_a_pod_that_does_not_come_when_called_loses_its_turn(
    kubelet: Kubelet, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "SHOWS_UP_S", 0.02)
    slurm = kubelet.slurm
    first, second, third = uids(3)
    for uid in (first, second, third):
        await kubelet.submit(uid)
    kubelet.submitter.forget(first)  # it was deleted
    slurm.room = 2
    await kubelet.until(2)
    assert set(kubelet.jobs) == {second, third}


async def test_what_slurm_did_not_answer_is_recovered_or_revoked_and_leaves_one_directory(
    kubelet: Kubelet, brisk: None
) -> None:
    slurm = kubelet.slurm
    slurm.error = TransientError("Socket timed out", reason="Unknown")
    kubelet.comes = False
    pod = PodRef("ns", "p", ONE)
    for _ in range(5):
        while True:
            try:
                await kubelet.submitter.submit(pod, PLAN, created="0", under_way=kubelet.under_way)
            except NotYourTurnError:
                await asyncio.sleep(0.01)
            except TransientError as error:
                assert error.reason == "Unknown"
                break
        journal = read_pod(kubelet.paths, ONE)
        assert journal is not None
        assert journal.current is not None
        assert await kubelet.submitter.recover(journal.current) is None
    attempts = kubelet.paths.pod_dir(ONE) / "attempts"
    assert len(list(attempts.iterdir())) == 1
    assert len(kubelet.paths.journal(ONE).read_text().splitlines()) == 2
    assert len(set(slurm.calls)) == 5


async def given_up(task: asyncio.Future[Any], begun: threading.Event) -> None:
    """Until the task's thread has begun, and nobody waits for it any more."""
    while not begun.is_set():
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])


async def test_files_that_are_made_late_do_not_wipe_the_job_that_was_submitted_after_them(
    kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet.slurm.room = 1
    stalls, answers, ended = threading.Event(), threading.Event(), threading.Event()

    def stalling(*given: Any) -> Attempt:
        if stalls.is_set():
            return begin_attempt(*given)
        stalls.set()
        answers.wait()
        try:
            return begin_attempt(*given)
        finally:
            ended.set()

    monkeypatch.setattr(attempt_files, "begin_attempt", stalling)
    pod = PodRef("ns", "p", ONE)

    def submit() -> asyncio.Future[Attempt]:
        submitter = kubelet.submitter
        return asyncio.ensure_future(
            submitter.submit(pod, PLAN, created="0", under_way=kubelet.under_way)
        )

    try:
        await given_up(submit(), stalls)
        second = submit()
        done, _ = await asyncio.wait([second], timeout=0.2)
    finally:
        answers.set()
    assert not done
    attempt = await second
    assert ended.is_set()
    journal = read_pod(kubelet.paths, ONE)
    assert journal is not None
    assert [(one.nonce, one.job_id) for one in journal.attempts] == [(attempt.nonce, SlurmJobId(1))]


def test_of_an_attempt_that_cannot_all_be_removed_the_claim_is_left(tmp_path: Path) -> None:
    layout = AttemptLayout(str(tmp_path / "attempt"))
    busy = Path(layout.token)  # as on a file system that does not let go of a file
    busy.mkdir(parents=True)
    for path in (layout.spec, layout.claim, layout.job_output):
        Path(path).write_text("x")
    remove_attempt(layout)
    assert Path(layout.claim).exists()
    assert not Path(layout.spec).exists()
    busy.rmdir()
    Path(layout.logs).mkdir()
    remove_attempt(layout)
    assert list(tmp_path.iterdir()) == []


async def test_an_attempt_is_revoked_after_what_was_begun_for_its_pod_and_not_beside_it(
    tmp_path: Path,
) -> None:
    files = SharedFiles(tmp_path)
    kubelet = Kubelet(tmp_path, Slurm(room=1), files=files)
    pod = PodRef("ns", "p", ONE)
    attempt = await kubelet.submitter.submit(pod, PLAN, created="0", under_way=kubelet.under_way)
    begun, answers = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        answers.wait()

    try:
        await given_up(asyncio.ensure_future(files.do_in_turn(ONE, hang)), begun)
        revoking = asyncio.ensure_future(kubelet.submitter.revoke(attempt))
        done, _ = await asyncio.wait([revoking], timeout=0.2)
        assert not Path(kubelet.paths.attempt(ONE, attempt.nonce).claim).exists()
    finally:
        answers.set()
    assert not done
    assert await revoking
    await kubelet.close()
