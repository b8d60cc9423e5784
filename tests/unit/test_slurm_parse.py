"""Slurm's text to data. The samples are what Slurm 22.05.8 writes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.duration import format_duration, parse_duration
from hpk.model.errors import HpkError, ParseError, PermanentError, TransientError
from hpk.model.ids import SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.slurm.parse import parse_kill_wait, parse_sacct, parse_squeue, parse_state
from hpk.slurm.parse_partitions import (
    Membership,
    parse_gres_gpus,
    parse_nodes,
    parse_oneliner,
    parse_partitions,
)
from hpk.slurm.refusals import refusal
from hpk.slurm.submitting import parse_submit_output

SQUEUE = """\
MARK|78|FAILED|NonZeroExitCode|n1|1795400831|1795400835|default/t1@a4c9169a30efbeb5
MARK|81|PENDING|JobHeldUser||N/A|N/A|new
line
MARK|80_[1-2]|PENDING|JobHeldUser||N/A|N/A|a|b c
MARK|63|RUNNING|None|n[1-2]|1795400727|1795400787|t/a|b@0123456789abcdef
"""


def squeue(text: str) -> tuple[JobObservation, ...]:
    """parse_squeue of lines whose command is left out."""
    whole = re.sub(r"(?m)^(MARK(?:\|[^|\n]*){6})\|", r"\1|MARK(null)MARK", text)
    return tuple(parse_squeue(whole, "MARK").values())


def sacct(text: str) -> tuple[JobObservation, ...]:
    """parse_sacct of lines whose submit line is left out."""
    lines = (
        "|".join([*line.split("|")[:-1], "", line.split("|")[-1]]) for line in text.split("\n")
    )
    return parse_sacct("".join(f"{line}|\n" for line in lines if line.strip("|")), "|")


def test_squeue() -> None:
    failed, held, running = squeue(SQUEUE)
    assert failed == JobObservation(
        job_id=SlurmJobId(78),
        name="default/t1@a4c9169a30efbeb5",
        state=JobState.FAILED,
        reason="NonZeroExitCode",
        nodes="n1",
        exit_code=None,
        signal=0,
        start_time_s=1795400831.0,
        end_time_s=1795400835.0,
        source="squeue",
    )
    assert (held.name, held.reason, held.start_time_s) == ("new\nline", "JobHeldUser", None)
    assert (running.name, running.nodes) == ("t/a|b@0123456789abcdef", "n[1-2]")
    assert (running.reason, running.end_time_s) == ("", None)


def test_a_jobs_name_cannot_forge_another_job() -> None:
    forged = "MARK|1|PENDING|None||N/A|N/A|x\nWRONG|2|COMPLETED|None|n1|1|2|default/web@0\n"
    (job,) = squeue(forged)
    assert job.job_id == 1


def test_an_empty_queue() -> None:
    assert squeue("") == ()
    assert parse_sacct("\n", "|") == ()


def test_commands_and_what_is_known_already() -> None:
    text = "MARK|7|RUNNING|None|n1|1|2|MARK/a|b\nc/script.sh xMARKname\n"
    known = parse_squeue(text, "MARK")
    (job,) = known.values()
    assert (job.command, job.name) == ("/a|b\nc/script.sh x", "name")
    again = parse_squeue(text + text.replace("|7|", "|8|"), "MARK", known)
    first, second = again.values()
    assert first is job
    assert second.job_id == 8
    (recorded,) = parse_sacct("7~COMPLETED~0:0~None~n1~1~2~sbatch\na|b~name~\n", "~")
    assert (recorded.command, recorded.name) == ("sbatch\na|b", "name")


@pytest.mark.parametrize(
    "text",
    [
        "slurm_load_jobs error\n",
        "MARK|1|PENDING\n",
        "MARK|1|dancing on|None||N/A|N/A|x\n",
        "MARK|1|RUNNING|None||2026-01-01T00:00:00|N/A|x\n",
    ],
)
def test_what_squeue_cannot_have_written(text: str) -> None:
    with pytest.raises(ParseError):
        squeue(text)


def test_a_state_of_a_newer_slurm_hides_no_other_job() -> None:
    text = "MARK|1|EXPEDITING|None||N/A|N/A|x\nMARK|2|RUNNING|None|n1|N/A|N/A|y\n"
    assert [job.state for job in squeue(text)] == [JobState.UNKNOWN, JobState.RUNNING]


SACCT = """\
59|FAILED|0:9|None|n1|1795400727|1795400727|t/sig@0123456789abcdef
59.batch|CANCELLED|0:9||n1|1795400727|1795400727|batch
60|OUT_OF_MEMORY|0:125|None|n1|1795400727|1795400727|t/oom@0123456789abcdef
60.batch|OUT_OF_MEMORY|0:125||n1|1795400727|1795400727|batch
62|FAILED|1:0|None|n2|1795400727|1795400727|t/oomstep@0123456789abcdef
62.batch|FAILED|1:0||n2|1795400727|1795400727|batch
62.0|OUT_OF_MEMORY|0:125||n2|1795400727|1795400727|python3
64|COMPLETED|0:0|None|n2|1795400727|1795400728|t/recovered@0123456789abcdef
64.0|OUT_OF_MEMORY|0:125||n2|1795400727|1795400727|python3
65|RUNNING|0:0|None|n2|1795400727|Unknown|t/running@0123456789abcdef
65.extern|RUNNING|0:0||n2|1795400727|Unknown|extern
66|CANCELLED by 20001|0:0|PartitionConfig|None assigned|1795400735|1795400735|s10.sh
67_1|COMPLETED|0:0|None|n2|1795400727|1795400728|array
"""


def test_sacct() -> None:
    jobs = {job.job_id: job for job in sacct(SACCT)}
    assert list(jobs) == [59, 60, 62, 64, 65, 66]
    signalled = jobs[SlurmJobId(59)]
    assert (signalled.state, signalled.exit_code, signalled.signal) == (JobState.FAILED, 0, 9)
    out_of_memory = jobs[SlurmJobId(60)]
    assert (out_of_memory.state, out_of_memory.signal) == (JobState.OUT_OF_MEMORY, 0)
    step = jobs[SlurmJobId(62)]
    assert (step.state, step.exit_code) == (JobState.OUT_OF_MEMORY, 1)
    assert jobs[SlurmJobId(64)].state is JobState.COMPLETED
    running = jobs[SlurmJobId(65)]
    assert (running.exit_code, running.end_time_s) == (None, None)
    cancelled = jobs[SlurmJobId(66)]
    assert (cancelled.state, cancelled.reason) == (JobState.CANCELLED, "PartitionConfig")
    assert (cancelled.nodes, cancelled.start_time_s) == ("", None)


@pytest.mark.parametrize(
    "text",
    [
        "sacct: error\n",
        "1|COMPLETED|0:0|None|n1|1|2\n",
        "1|COMPLETED|zero|None|n1|1|2|x\n",
        "1|COMPLETED|0:0|None|n1|yesterday|2|x\n",
    ],
)
def test_what_sacct_cannot_have_written(text: str) -> None:
    with pytest.raises(ParseError) as caught:
        sacct(text)
    assert text.split("|")[0].strip() in str(caught.value)


@pytest.mark.parametrize("state", list(JobState))
def test_every_state(state: JobState) -> None:
    assert parse_state(state.value) is state
    assert parse_state(f"{state.value}+") is state
    assert parse_state(f"{state.value} by 1000") is state


NODES = """\
NodeName=n1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=4 CPUTot=4 CPULoad=1.19 \
AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:2 NodeAddr=n1 NodeHostName=n1 \
Version=22.05.8 OS=Linux 6.1 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=8000 AllocMem=0 FreeMem=20201 \
Sockets=4 Boards=1 State=IDLE Partitions=main,debug  BootTime=1795398196 CfgTRES=cpu=4,mem=8000M
NodeName=big Arch=x86_64 CPUEfctv=60 CPUTot=64 AvailableFeatures=a100,ib ActiveFeatures=a100,ib \
Gres=gpu:a100:4(S:0-1),nvme:1 OS=Linux RealMemory=512000 MemSpecLimit=12000 State=DOWN+DRAIN \
Partitions=main  Comment=RealMemory=1 Reason=bad disk CPUTot=1 [root@2026-01-01T00:00:00]
"""
PARTITIONS = """\
PartitionName=main AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES \
QoS=N/A DefaultTime=01:00:00 DisableRootJobs=NO MaxTime=1-00:00:00 MaxCPUsPerNode=32 \
Nodes=n1,big RootOnly=NO State=UP DefMemPerCPU=500 MaxMemPerNode=UNLIMITED TRES=cpu=16
PartitionName=debug AllowGroups=staff,alice AllowAccounts=proj DenyAccounts=no Default=NO \
DefaultTime=NONE MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED RootOnly=NO State=DRAIN \
DefMemPerNode=UNLIMITED
PartitionName=admin AllowGroups=ALL AllowAccounts=ALL Default=NO MaxTime=5 RootOnly=YES State=UP
"""
ALICE = Membership(accounts=frozenset({"proj"}), groups=frozenset({"alice"}))


def test_partitions() -> None:
    main, debug = parse_partitions(PARTITIONS, parse_nodes(NODES), ALICE)
    assert (main.name, main.is_default, main.is_up) == ("main", True, True)
    assert main.nodes == ("n1", "big")
    assert (main.max_time_s, main.default_time_s) == (86400, 3600)
    assert main.default_memory_per_cpu_bytes == 500 << 20
    assert (main.total_cpus, main.max_node_cpus) == (64, 32)
    assert main.total_memory_bytes == 508000 << 20
    assert main.max_node_memory_bytes == 500000 << 20
    assert (main.gpus, main.max_node_gpus) == (6, 4)
    assert main.features == ("a100", "ib")
    assert (debug.name, debug.is_up, debug.nodes) == ("debug", False, ("n1",))
    assert (debug.max_time_s, debug.default_time_s) == (None, None)


@pytest.mark.parametrize(
    "member",
    [
        Membership(accounts=frozenset({"other"}), groups=frozenset({"alice"})),
        Membership(accounts=frozenset({"proj"}), groups=frozenset({"other"})),
    ],
)
def test_a_partition_that_is_closed_to_the_user(member: Membership) -> None:
    assert [p.name for p in parse_partitions(PARTITIONS, (), member)] == ["main"]


def test_without_accounting_every_account_is_taken_for_allowed() -> None:
    member = Membership(accounts=None, groups=frozenset({"staff"}))
    assert [p.name for p in parse_partitions(PARTITIONS, (), member)] == ["main", "debug"]


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("(null)", 0),
        ("", 0),
        ("gpu:2", 2),
        ("gpu", 1),
        ("gpu:a100:4(S:0-1)", 4),
        ("gpu:a100:4(S:0,2),gpu:v100:1,nvme:3", 5),
        ("gpu:1k", 1024),
    ],
)
def test_gres(text: str, gpus: int) -> None:
    assert parse_gres_gpus(text) == gpus


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("UNLIMITED", None),
        ("NONE", None),
        ("5", 300),
        ("00:30:00", 1800),
        ("10:30", 630),
        ("1-00:00:00", 86400),
        ("2-12", 216000),
        ("365-00:00:00", 31536000),
    ],
)
def test_durations(text: str, seconds: int | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("seconds", [0, 60, 3600, 86400, 123 * 60, 10 * 86400 + 3660])
def test_durations_written_are_read_again(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
    assert parse_duration(format_duration(seconds + 1)) == seconds + 60


@pytest.mark.parametrize("text", ["gpu:many", "gpu:a:b"])
def test_gres_that_cannot_be(text: str) -> None:
    with pytest.raises(ParseError):
        parse_gres_gpus(text)


@pytest.mark.parametrize(
    ("output", "job_id"),
    [("12\n", 12), ("12;cluster\n", 12), ("12", None), ("", None), ("sbatch: hello\n12\n", 12)],
)
def test_the_id_sbatch_prints(output: str, job_id: int | None) -> None:
    assert parse_submit_output(output) == job_id


PREFIX = "sbatch: error: Batch job submission failed: "

GRES = "SlurmInvalidGres"


@pytest.mark.parametrize(
    ("stderr", "kind", "reason"),
    [
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + PREFIX + "Job violates accounting/QOS"
            " policy (job submit limit, user's size and/or time limits)\n",
            TransientError,
            "SubmitLimit",
        ),
        (
            "sbatch: error: AssocMaxSubmitJobLimit\n" + PREFIX + "Job violates accounting/QOS"
            " policy (job submit limit, user's size and/or time limits)\n",
            TransientError,
            "SubmitLimit",
        ),
        (
            "sbatch: error: QOSMaxCpuPerJobLimit\n" + PREFIX + "Job violates accounting/QOS policy"
            " (job submit limit, user's size and/or time limits)\n",
            PermanentError,
            "SlurmQosLimit",
        ),
        (
            PREFIX + "Unable to contact slurm controller (connect failure)",
            TransientError,
            "Unreachable",
        ),
        (PREFIX + "Socket timed out on send/recv operation", TransientError, "Unknown"),
        (PREFIX + "Zero Bytes were transmitted or received", TransientError, "Unknown"),
        (
            PREFIX + "Unable to contact slurm controller (receive failure)",
            TransientError,
            "Unknown",
        ),
        (PREFIX + "Required partition not available (inactive or drain)", TransientError, "NotNow"),
        (PREFIX + "Protocol authentication error", TransientError, "Unreachable"),
        (PREFIX + "Invalid qos specification", PermanentError, "SlurmInvalidQos"),
        (
            PREFIX + "Invalid account or account/partition combination specified",
            PermanentError,
            "SlurmInvalidAccount",
        ),
        (
            PREFIX + "Requested node configuration is not available",
            PermanentError,
            "SlurmUnsatisfiable",
        ),
        (
            PREFIX + "Requested time limit is invalid (missing or exceeds some limit)",
            PermanentError,
            "SlurmInvalidTimeLimit",
        ),
        ("sbatch: unrecognized option '--segment=3'", PermanentError, "SlurmRefused"),
        (PREFIX + "Invalid generic resource (gres) specification", PermanentError, GRES),
        (PREFIX + "Invalid feature specification", PermanentError, "SlurmInvalidConstraint"),
        (PREFIX + "Job dependency problem", PermanentError, "SlurmInvalidDependency"),
        (PREFIX + "Invalid license specification", PermanentError, "SlurmInvalidLicenses"),
        (PREFIX + "Invalid wckey specification", PermanentError, "SlurmRefused"),
        # Words of which a part looks like one of those above, and words that nobody knows.
        ("sbatch: error: Operation now in progress", TransientError, "Refused"),
        ("sbatch: error: independent features2 sublicense", TransientError, "Refused"),
        (PREFIX + "Unspecified error", TransientError, "Refused"),
        (
            "sbatch: error: lua: project database timed out, try again",
            TransientError,
            "Refused",
        ),
        ("sbatch: error: Disk quota exceeded", TransientError, "NotNow"),
        ("", TransientError, "Refused"),
    ],
)
def test_refusals(stderr: str, kind: type[HpkError], reason: str) -> None:
    error = refusal("sbatch", stderr, exit_code=1)
    assert isinstance(error, PermanentError | TransientError)
    assert (type(error), error.reason) == (kind, reason)
    assert "sbatch: " not in error.message


def test_an_sbatch_that_was_killed_may_have_submitted() -> None:
    error = refusal("sbatch", "", exit_code=-9)
    assert isinstance(error, TransientError)
    assert error.reason == "Unknown"


@given(st.text(alphabet="MARK|0123456789\nCOMPLETED:N/A_. ", max_size=80))
def test_any_text_parses_or_is_an_error(text: str) -> None:
    for parse in (
        lambda: parse_squeue(text, "MARK"),
        lambda: parse_sacct(text, "|"),
        lambda: parse_oneliner(text),
        lambda: parse_duration(text),
        lambda: parse_gres_gpus(text),
    ):
        try:
            parse()
        except ParseError:
            continue


@given(st.text(alphabet="NodePartitionName=RealMemoryCPUTot 0123456789\n(null)", max_size=120))
def test_any_text_of_scontrol_parses_or_is_an_error(text: str) -> None:
    try:
        nodes = parse_nodes("NodeName=" + text)
        parse_partitions("PartitionName=" + text, nodes, ALICE)
    except ParseError:
        return


@given(st.text(max_size=40).filter(lambda text: "MARK" not in text))
def test_any_name_comes_back(name: str) -> None:
    (job,) = squeue(f"MARK|7|RUNNING|None|n1|1|2|{name}\n")
    assert job.name == name


def test_kill_wait_is_read_and_its_absence_is_an_error() -> None:
    config = "KeepAliveTime           = SYSTEM_DEFAULT\nKillOnBadExit           = 0\n"
    assert parse_kill_wait(config + "KillWait                = 5 sec\n") == 5
    with pytest.raises(ParseError, match="KillWait"):
        parse_kill_wait(config)
