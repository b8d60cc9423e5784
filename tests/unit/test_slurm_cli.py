"""CliBackend where Slurm misbehaves: fake programs on PATH do what a lab cannot be made to do."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpk.model.errors import HpkError, ParseError, PermanentError, TransientError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobState
from hpk.slurm.base import Submission
from hpk.slurm.cli import CliBackend

ONE, TWO, THREE = SlurmJobId(1), SlurmJobId(2), SlurmJobId(3)

# Prints the marker its caller asked for before each line.
SQUEUE = """
for word; do last=$word; done
marker=${last%%|*}
echo "$marker|1|RUNNING|None|n1|100|N/A|one"
echo "$marker|2|COMPLETED|None|n1|100|200|two"
"""


def install(directory: Path, programs: Mapping[str, str]) -> CliBackend:
    """A back end whose programs are these shell scripts."""
    for name, body in programs.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o700)
    return CliBackend({"PATH": f"{directory}:/usr/bin:/bin"})


def submission(directory: Path) -> Submission:
    """A submission in this directory, its lock held."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return Submission(
        script=directory / "script.sh",
        stdout_path=directory / "out",
        stderr_path=directory / "err",
        lock_fd=fd,
    )


async def test_a_job_that_only_accounting_could_speak_of_is_unknown(tmp_path: Path) -> None:
    words = "echo 'sacct: error: slurm_persist_conn_open_without_init: failed' >&2; exit 1"
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": words})
    jobs = await backend.jobs([ONE, TWO, THREE])
    assert {job_id: job.state for job_id, job in jobs.items()} == {
        ONE: JobState.RUNNING,
        TWO: JobState.COMPLETED,
        THREE: JobState.UNKNOWN,
    }
    assert "slurm_persist_conn_open" in jobs[THREE].reason


async def test_a_job_that_both_deny_is_absent(tmp_path: Path) -> None:
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": "exit 0"})
    assert (await backend.jobs([THREE])) == {}


async def test_a_site_without_accounting(tmp_path: Path) -> None:
    words = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": words})
    jobs = await backend.jobs([TWO, THREE])
    assert list(jobs) == [TWO]
    assert jobs[TWO].exit_code is None


async def test_accounting_that_lags_behind_does_not_revive_a_job(tmp_path: Path) -> None:
    lagging = "echo '2|RUNNING|0:0|None|n1|100|Unknown|two'"
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": lagging})
    assert (await backend.jobs([TWO]))[TWO].state is JobState.COMPLETED


async def test_accounting_adds_the_exit_code(tmp_path: Path) -> None:
    sacct = "echo '2|FAILED|3:0|None|n1|100|200|allocation'"
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": sacct})
    job = (await backend.jobs([TWO]))[TWO]
    assert (job.state, job.exit_code, job.name) == (JobState.FAILED, 3, "two")


async def test_one_poll_for_all_jobs_and_none_for_none(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    backend = install(
        tmp_path, {"squeue": f"echo squeue >> {log}\n{SQUEUE}", "sacct": f"echo sacct >> {log}"}
    )
    await backend.jobs([])
    assert not log.exists()
    await backend.jobs([ONE])
    assert log.read_text().split() == ["squeue"]
    await backend.jobs([ONE, TWO, THREE])
    assert log.read_text().split() == ["squeue", "squeue", "sacct"]


async def test_squeue_that_does_not_answer(tmp_path: Path) -> None:
    words = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2"
    backend = install(tmp_path, {"squeue": f"{words}; exit 1", "sacct": "exit 0"})
    with pytest.raises(TransientError):
        await backend.jobs([ONE])


async def test_output_that_is_not_slurms(tmp_path: Path) -> None:
    backend = install(tmp_path, {"squeue": "echo hello", "sacct": "exit 0", "sbatch": "echo hello"})
    with pytest.raises(ParseError):
        await backend.jobs([ONE])
    with pytest.raises(ParseError):
        await backend.version()


async def test_sbatch_gets_the_script_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SBATCH_PARTITION", "SLURM_JOB_ID", "SQUEUE_FORMAT", "TMPDIR", "SECRET"):
        monkeypatch.setenv(name, "leak")
    body = f'env > {tmp_path}/env; echo "$@" > {tmp_path}/args; echo "77;cluster"'
    backend = install(tmp_path, {"sbatch": body})
    assert await backend.submit(submission(tmp_path)) == 77
    assert (tmp_path / "args").read_text() == f"--parsable {tmp_path}/script.sh\n"
    names = {line.split("=", 1)[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "leak" not in (tmp_path / "env").read_text()
    assert not {name for name in names if name.startswith(("SLURM", "SBATCH"))}


async def test_sbatch_holds_the_lock_for_as_long_as_it_runs(tmp_path: Path) -> None:
    # The lock is its caller's until the caller dies; what a child still holds is taken by nobody.
    body = f"(while [ ! -e {tmp_path}/go ]; do sleep 0.01; done) >/dev/null 2>&1 & echo 5"
    backend = install(tmp_path, {"sbatch": body})
    ours = submission(tmp_path)
    await backend.submit(ours)
    os.close(ours.lock_fd)
    other = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / "go").touch()
    fcntl.flock(other, fcntl.LOCK_EX)
    os.close(other)


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ("exit 0", TransientError, "Unknown"),
        ("kill -9 $$", TransientError, "Unknown"),
        ("printf 12", TransientError, "Unknown"),
        ("echo 'sbatch: error: Socket timed out' >&2; exit 1", TransientError, "Unknown"),
        (
            "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1",
            TransientError,
            "SubmitLimit",
        ),
        ("echo 'sbatch: error: Invalid qos' >&2; exit 1", PermanentError, "SlurmInvalidQos"),
    ],
)
async def test_sbatch_that_fails(
    tmp_path: Path, body: str, kind: type[HpkError], reason: str
) -> None:
    backend = install(tmp_path, {"sbatch": body})
    with pytest.raises((TransientError, PermanentError)) as caught:
        await backend.submit(submission(tmp_path))
    error = caught.value
    assert isinstance(error, TransientError | PermanentError)
    assert (type(error), error.reason) == (kind, reason)


async def test_an_id_is_an_id_whatever_follows(tmp_path: Path) -> None:
    backend = install(tmp_path, {"sbatch": "echo 12; echo 'sbatch: error: odd' >&2; exit 1"})
    assert await backend.submit(submission(tmp_path)) == 12


async def test_no_slurm_here(tmp_path: Path) -> None:
    backend = CliBackend({"PATH": str(tmp_path)})
    with pytest.raises(PermanentError) as caught:
        await backend.version()
    assert "sbatch" in str(caught.value)


async def test_finding_by_name_looks_back_past_midnight(tmp_path: Path) -> None:
    body = f"""echo "$@" > {tmp_path}/args
echo '8|COMPLETED|0:0|None|n1|100|200|wanted'
echo '9|COMPLETED|0:0|None|n1|100|200|not wanted'"""
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": body})
    since_s = time.time() - 3 * 86400
    (job,) = await backend.find_jobs("wanted", since_s=since_s)
    assert job.job_id == 8
    day = time.strftime("%Y-%m-%d", time.localtime(since_s - 300))
    assert f"--name=wanted -S {day}T" in (tmp_path / "args").read_text()


async def test_more_jobs_than_an_argument_can_hold(tmp_path: Path) -> None:
    body = """
for word; do last=$word; done
for id in $(echo $last | tr , ' '); do echo "$id|COMPLETED|0:0|None|n1|100|200|x"; done"""
    backend = install(tmp_path, {"squeue": "exit 0", "sacct": body})
    ids = [SlurmJobId(1_000_000_000 + number) for number in range(15_000)]
    assert set(await backend.jobs(ids)) == set(ids)
