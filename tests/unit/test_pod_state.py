"""What is remembered of a pod, against real journals and token files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import pytest

from hpk.durable import private_directory, write_atomically
from hpk.journal import Step, read_pod, record_step
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.placement import Placement
from hpk.statefs import HpkPaths
from kubelet.pods.pod_state import PodState
from kubelet.shared_files import SharedFiles
from kubelet.submission.submitter import Submitter

POD = PodRef("default", "web", PodUid("0a1b"))
NONCE = Nonce("0" * 16)


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    return HpkPaths(home=tmp_path / "home", cache=tmp_path / "cache")


@pytest.fixture
def state(paths: HpkPaths, tmp_path: Path) -> PodState:
    return a_state(paths, tmp_path)


def a_state(paths: HpkPaths, directory: Path) -> PodState:
    submitter = cast(Submitter, None)  # is asked for plans alone
    return PodState(POD, paths=paths, files=SharedFiles(directory), submitter=submitter)


def submit(paths: HpkPaths) -> None:
    layout = paths.attempt(POD.uid, NONCE)
    private_directory(Path(layout.root))
    write_atomically(Path(layout.token), "secret")
    record_step(paths, POD, Step.INTENT, nonce=NONCE)
    record_step(paths, POD, Step.SUBMITTED, nonce=NONCE, placement=Placement(SlurmJobId(7)))


async def test_a_new_pod_has_no_journal(state: PodState) -> None:
    assert not await state.wait_settled(0.01)
    await state.load()
    assert await state.wait_settled(0.01)
    assert (state.journal, state.current, state.attempts) == (None, None, ())


async def test_what_was_read_once_needs_no_file_again(state: PodState, paths: HpkPaths) -> None:
    submit(paths)
    await state.load()
    shutil.rmtree(paths.home)
    await state.load()
    assert state.current is not None
    assert state.current.job_id == 7
    assert state.takes_token(NONCE, "secret")
    assert not state.takes_token(NONCE, "secret ")
    assert not state.takes_token(Nonce("1" * 16), "secret")


async def test_steps_are_written_through(state: PodState, paths: HpkPaths) -> None:
    submit(paths)
    await state.load()
    assert await state.record(Step.DELETE)
    assert await state.record(Step.ENDED, state.current)
    assert state.journal == read_pod(paths, POD.uid)
    assert state.current is not None
    assert not state.current.is_open


async def test_what_could_not_be_written_is_not_remembered(
    state: PodState, paths: HpkPaths
) -> None:
    submit(paths)
    await state.load()
    shutil.rmtree(paths.home)
    assert not await state.record(Step.DELETE)
    assert state.journal is not None
    assert not state.journal.deleted


async def test_while_a_submission_is_under_way_the_journal_knows_more(
    state: PodState, paths: HpkPaths
) -> None:
    await state.load()
    async with state.submission():
        assert not await state.wait_settled(0.01)
        submit(paths)
    assert await state.wait_settled(0.01)
    assert state.takes_token(NONCE, "secret")


async def test_a_submission_that_tells_what_it_wrote_is_not_read_again(
    state: PodState, paths: HpkPaths
) -> None:
    await state.load()
    async with state.submission() as submitted:
        submit(paths)
        journal = read_pod(paths, POD.uid)
        assert journal is not None
        shutil.rmtree(paths.home)
        submitted(journal, "secret")
    assert await state.wait_settled(0.01)
    assert state.journal == journal
    assert state.takes_token(NONCE, "secret")
