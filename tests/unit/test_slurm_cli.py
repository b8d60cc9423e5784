"""CliBackend where Slurm misbehaves: fake programs on PATH do what a lab cannot be made to do."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpk.model.errors import HpkError, ParseError, PermanentError, TransientError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobState
from hpk.slurm.cli import CliBackend

ONE, TWO, THREE = SlurmJobId(1), SlurmJobId(2), SlurmJobId(3)

# Prints the marker its caller asked for before each line.
SQUEUE = """
for word; do last=$word; done
marker=${last%%|*}
echo "$marker|1|RUNNING|None|n1|100|N/A|${marker}/a/script.sh${marker}one"
echo "$marker|2|COMPLETED|None|n1|100|200|${marker}/b/script.sh${marker}two"
"""

# Prints what follows it on standard input, for the separator its caller asked for.
SACCT = """
for word; do case $word in --delimiter=*) marker=${word#*=} ;; esac; done
sed "s/|/$marker/g; s/$/$marker/" <<'END'
%s
END"""


def install(directory: Path, programs: Mapping[str, str]) -> CliBackend:
    """A back end whose programs are these shell scripts."""
    for name, body in programs.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o700)
    return CliBackend({"PATH": f"{directory}:/usr/bin:/bin"})


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
    lagging = SACCT % "2|RUNNING|0:0|None|n1|100|Unknown||two"
    backend = install(tmp_path, {"squeue": SQUEUE, "sacct": lagging})
    assert (await backend.jobs([TWO]))[TWO].state is JobState.COMPLETED


async def test_accounting_adds_the_exit_code(tmp_path: Path) -> None:
    sacct = SACCT % "2|FAILED|3:0|None|n1|100|200||allocation"
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
    assert await backend.submit(tmp_path / "script.sh", directory=tmp_path) == 77
    assert (tmp_path / "args").read_text() == f"--parsable {tmp_path}/script.sh\n"
    names = {line.split("=", 1)[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert "leak" not in (tmp_path / "env").read_text()
    assert not {name for name in names if name.startswith(("SLURM", "SBATCH"))}


async def test_whoever_recovers_waits_for_an_sbatch_that_still_runs(tmp_path: Path) -> None:
    started, go = tmp_path / "started", tmp_path / "go"
    body = f"touch {started}; while [ ! -e {go} ]; do sleep 0.01; done; echo 5"
    backend = install(tmp_path, {"sbatch": body})
    submission = asyncio.create_task(backend.submit(tmp_path / "script.sh", directory=tmp_path))
    while not started.exists():
        await asyncio.sleep(0.01)
    submission.cancel()  # as a kubelet's death would: sbatch goes on
    await asyncio.wait([submission])
    recovery = asyncio.create_task(backend.recover("x", since_s=0.0, directory=tmp_path))
    lock = os.open(tmp_path / "sbatch.out", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)
    assert not recovery.done()
    go.touch()
    assert await recovery == 5


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
        await backend.submit(tmp_path / "script.sh", directory=tmp_path)
    error = caught.value
    assert isinstance(error, TransientError | PermanentError)
    assert (type(error), error.reason) == (kind, reason)


async def test_an_id_is_an_id_whatever_follows(tmp_path: Path) -> None:
    backend = install(tmp_path, {"sbatch": "echo 12; echo 'sbatch: error: odd' >&2; exit 1"})
    assert await backend.submit(tmp_path / "script.sh", directory=tmp_path) == 12


async def test_no_slurm_here(tmp_path: Path) -> None:
    backend = CliBackend({"PATH": str(tmp_path)})
    with pytest.raises(PermanentError) as caught:
        await backend.version()
    assert "sbatch" in str(caught.value)


async def test_recovery_looks_back_past_midnight_and_past_a_changed_name(tmp_path: Path) -> None:
    lines = f"""8|COMPLETED|0:0|None|n1|100|200|sbatch --parsable {tmp_path}/script.sh|site-x
9|COMPLETED|0:0|None|n1|100|200|sbatch {tmp_path}-else/script.sh|y"""
    backend = install(
        tmp_path, {"squeue": SQUEUE, "sacct": f'echo "$@" > {tmp_path}/args\n{SACCT % lines}'}
    )
    since_s = time.time() - 3 * 86400
    assert await backend.recover("wanted", since_s=since_s, directory=tmp_path) == 8
    day = time.strftime("%Y-%m-%d", time.localtime(since_s - 300))
    assert f"-S {day}T" in (tmp_path / "args").read_text()
    assert await backend.recover("two", since_s=since_s, directory=tmp_path / "no") == 2
    assert await backend.recover("none", since_s=since_s, directory=tmp_path / "no") is None


async def test_those_who_ask_at_once_are_answered_by_one_squeue(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    backend = install(tmp_path, {"squeue": f"echo x >> {log}\n{SQUEUE}"})
    await asyncio.gather(*(backend.jobs([ONE]) for _ in range(40)))
    # The first may have begun before the others asked.
    assert len(log.read_text().split()) <= 2


async def test_deletions_gather_and_each_hears_of_its_own_job(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    body = f"""echo "$@" >> {log}
for id; do case $id in
  2) echo "scancel: error: Kill job error on job id 2: Invalid job id specified"; failed=1 ;;
  3) echo "scancel: error: Kill job error on job id 3: Access/permission denied"; failed=1 ;;
esac; done >&2
exit $failed"""
    backend = install(tmp_path, {"scancel": body})
    answers = await asyncio.gather(*(backend.cancel([SlurmJobId(n)]) for n in range(1, 41)))
    errors = {job_id: error for answer in answers for job_id, error in answer.items()}
    assert list(errors) == [THREE]
    assert "permission denied" in str(errors[THREE])
    assert len(log.read_text().splitlines()) <= 2


async def test_a_scancel_that_reached_nobody_cancelled_nothing(tmp_path: Path) -> None:
    words = "scancel: error: Unable to contact slurm controller (connect failure)"
    backend = install(tmp_path, {"scancel": f"echo '{words}' >&2; exit 1"})
    assert set(await backend.cancel([ONE, TWO])) == {ONE, TWO}


async def test_more_jobs_than_an_argument_can_hold(tmp_path: Path) -> None:
    body = """
for word; do last=$word; case $word in --delimiter=*) m=${word#*=} ;; esac; done
for id in $(echo $last | tr , ' '); do
  echo "$id${m}COMPLETED${m}0:0${m}None${m}n1${m}100${m}200${m}${m}x${m}"
done"""
    backend = install(tmp_path, {"squeue": "exit 0", "sacct": body})
    ids = [SlurmJobId(1_000_000_000 + number) for number in range(15_000)]
    assert set(await backend.jobs(ids)) == set(ids)


async def test_nodes_are_asked_again_only_when_a_partition_has_others(tmp_path: Path) -> None:
    calls, nodes = tmp_path / "calls", tmp_path / "nodes"
    nodes.write_text("n[1-2]")
    body = f"""echo "$3" >> {calls}
case $3 in
  node) for n in n1 n2 n3; do
    echo "NodeName=$n CPUTot=4 RealMemory=1000 Partitions=main"; done ;;
  partition) echo "PartitionName=main Nodes=$(cat {nodes}) State=UP" ;;
esac"""
    backend = install(tmp_path, {"scontrol": body})
    for _ in range(3):
        (partition,) = await backend.partitions()
    assert partition.total_cpus == 12
    assert calls.read_text().split() == ["partition", "node", "partition", "partition"]
    nodes.write_text("n[1-3]")
    await backend.partitions()
    assert calls.read_text().split()[4:] == ["partition", "node"]
