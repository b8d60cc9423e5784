"""The journal survives what crashes do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpk.durable import claim, private_directory, write_atomically
from hpk.journal import (
    Attempt,
    JournalChangedError,
    Step,
    begin_attempt,
    known_pods,
    read_pod,
    record_step,
)
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.model.placement import Placement
from hpk.statefs import HpkPaths

POD = PodRef("default", "web", PodUid("0a1b"))
FIRST, SECOND = Nonce("0" * 16), Nonce("1" * 16)


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    made = HpkPaths(home=tmp_path / 'it\'s a "home"', cache=tmp_path / "cache")
    private_directory(made.pod_dir(POD.uid))
    return made


def test_there_is_nothing_of_an_unknown_pod(paths: HpkPaths) -> None:
    assert read_pod(paths, PodUid("other")) is None


def test_an_attempt_goes_from_intent_to_end(paths: HpkPaths) -> None:
    record_step(paths, POD, Step.INTENT, nonce=FIRST)
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.is_open
    assert journal.current.job_id is None
    assert journal.current.job_name == f"default/web@{FIRST}"
    record_step(paths, POD, Step.SUBMITTED, nonce=FIRST, placement=Placement(SlurmJobId(42)))
    record_step(paths, POD, Step.ENDED, nonce=FIRST)
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.job_id == 42
    assert not journal.current.is_open


def test_a_revoked_attempt_no_longer_speaks_for_the_pod(paths: HpkPaths) -> None:
    record_step(paths, POD, Step.INTENT, nonce=FIRST)
    record_step(paths, POD, Step.REVOKED, nonce=FIRST)
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is None
    record_step(paths, POD, Step.INTENT, nonce=SECOND)
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.nonce == SECOND
    assert len(journal.attempts) == 2


def test_a_line_that_a_crash_cut_short_was_never_written(paths: HpkPaths) -> None:
    record_step(paths, POD, Step.INTENT, nonce=FIRST)
    with paths.journal(POD.uid).open("a") as file:
        file.write('{"step":"submitted","nonce":"00')
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.job_id is None
    record_step(paths, POD, Step.SUBMITTED, nonce=FIRST, placement=Placement(SlurmJobId(5)))
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.job_id == 5


def test_only_one_can_take_a_claim(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    assert claim(path, "supervisor 1")
    assert claim(path, "supervisor 1")
    assert not claim(path, "revoked")
    assert path.read_text() == "supervisor 1"
    assert [entry.name for entry in tmp_path.iterdir()] == ["claim"]


def test_files_are_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, "one")
    write_atomically(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_no_directory_on_the_way_is_open_to_others(tmp_path: Path) -> None:
    private_directory(tmp_path / "cache/hpk/images")
    made = ("cache", "cache/hpk", "cache/hpk/images")
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in made} == {0o700}


def test_a_link_is_not_taken_for_our_directory(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    with pytest.raises(Exception, match="not a directory"):
        private_directory(tmp_path / "ours")


def test_directories_of_others_are_no_pods(paths: HpkPaths) -> None:
    for name in (".snapshot", "old.bak", ".nfs0001"):
        (paths.pods / name).mkdir()
    assert known_pods(paths) == (POD.uid,)


def test_a_journal_of_before_there_were_placements(paths: HpkPaths) -> None:
    record_step(paths, POD, Step.INTENT, nonce=FIRST)
    with paths.journal(POD.uid).open("a") as file:
        line = '{"step":"submitted","at_s":1,"namespace":"default","name":"web","nonce":"%s",'
        file.write(line % FIRST + '"job_id":42}\n')
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.attempts[0].placement == Placement(SlurmJobId(42))


def a_job(**changed: str) -> JobObservation:
    """What squeue shows of a job, under a foreign name."""
    fields: dict[str, str] = {"name": "renamed", "command": f"/h/pods/u/attempts/{FIRST}/script.sh"}
    return JobObservation(
        job_id=SlurmJobId(7),
        state=JobState.RUNNING,
        reason="",
        nodes="n1",
        exit_code=None,
        signal=0,
        start_time_s=1.0,
        end_time_s=None,
        source="squeue",
        **(fields | changed),
    )


def test_a_job_is_known_by_what_it_runs_and_not_by_its_name() -> None:
    attempt = Attempt(pod=POD, nonce=FIRST, intent_at_s=0.0)
    assert attempt.owns(a_job())
    assert attempt.owns(a_job(name=f"site-default/web@{FIRST}", command=""))
    assert attempt.owns(a_job(name="allocation", command=""))
    assert not attempt.owns(a_job(command="/home/me/simulate.sh"))
    assert not attempt.owns(a_job(name=f"default/web@{SECOND}", command=""))


def test_an_attempt_that_is_begun_late_does_not_wipe_the_one_that_came_before_it(
    paths: HpkPaths,
) -> None:
    record_step(paths, POD, Step.INTENT, nonce=FIRST)
    record_step(paths, POD, Step.REFUSED, nonce=FIRST)
    seen = read_pod(paths, POD.uid)
    begin_attempt(paths, seen, POD, SECOND)
    record_step(paths, POD, Step.SUBMITTED, nonce=SECOND, placement=Placement(SlurmJobId(42)))
    for stale in (seen, None):
        with pytest.raises(JournalChangedError):
            begin_attempt(paths, stale, POD, Nonce("2" * 16))
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.current is not None
    assert journal.current.job_id == 42


def test_how_often_a_pod_broke_down_outlives_the_attempts_that_did(paths: HpkPaths) -> None:
    for number in range(4):
        journal = read_pod(paths, POD.uid)
        assert (journal.broke_down if journal is not None else 0) == number
        nonce = Nonce(str(number) * 16)
        assert begin_attempt(paths, journal, POD, nonce).again == number
        record_step(paths, POD, Step.SUBMITTED, nonce=nonce, placement=Placement(SlurmJobId(7)))
        record_step(paths, POD, Step.REVOKED, nonce=nonce)
    journal = read_pod(paths, POD.uid)
    # One that had no job, and one that Slurm refused, did not break down.
    begin_attempt(paths, journal, POD, Nonce("a" * 16))
    record_step(paths, POD, Step.REVOKED, nonce=Nonce("a" * 16))
    journal = read_pod(paths, POD.uid)
    begin_attempt(paths, journal, POD, Nonce("b" * 16))
    record_step(paths, POD, Step.REFUSED, nonce=Nonce("b" * 16))
    journal = read_pod(paths, POD.uid)
    assert journal is not None
    assert journal.broke_down == 4
    assert len(journal.attempts) == 1
