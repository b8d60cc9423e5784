"""The command line back end and the batch script against the lab's real Slurm."""

from __future__ import annotations

import base64
import io
import json
import re
import secrets
import shlex
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpk.model.ids import PodRef, PodUid
from hpk.model.layout import AttemptLayout
from hpk.model.plan import PodPlan, RestartPolicy, SbatchOption
from hpk.planning.job.sbatch_options import ALLOWED
from hpk.render import directive, render_script

if TYPE_CHECKING:
    from tests.slurm.conftest import LabUnderTest


ROOT = Path(__file__).parents[2]
PYTHON = "/opt/software/hpk/bin/python"
UNPACK = """
import base64, io, sys, tarfile
with tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.stdin.read()))) as tar:
    tar.extractall(sys.argv[1])
"""
HEAD = "#!/bin/bash\n#SBATCH --output=/dev/null --mem=100M --no-requeue\n"
ENDED = ["COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "TIMEOUT"]
NEWER = {"extra", "segment", "spread-segments", "consolidate-segments", "stepmgr", "tres-bind"}
NEWER |= {"tres-per-task"}
"""Options that Slurm 22.05 does not have yet."""


@dataclass(frozen=True)
class Backend:
    """A directory of alice's with this checkout's hpk in it."""

    lab: LabUnderTest
    directory: str

    def run(self, argv: Sequence[str], *, stdin: str | None = None) -> str:
        """The output of a program on the login host; it must end well."""
        done = self.lab.run(
            host="login", user="alice", argv=argv, stdin=stdin, timeout_s=300, check=True
        )
        return done.stdout

    def shell(self, script: str) -> str:
        """The output of a shell script, run in the directory."""
        argv = [
            "bash",
            "-c",
            'cd "$1" && shift && exec bash -euc "$1"',
            "-",
            self.directory,
            script,
        ]
        return self.run(argv)

    def calls(self, *calls: tuple[str, dict[str, Any]], env: dict[str, str] | None = None) -> Any:
        """Make calls of CliBackend (backend_calls.py); their answers."""
        words = [f"{name}={value}" for name, value in (env or {}).items()]
        command = shlex.join(["env", "PYTHONPATH=package", *words, PYTHON, "package/calls.py"])
        argv = ["bash", "-c", 'cd "$1" && exec bash -c "$2"', "-", self.directory, command]
        return json.loads(self.run(argv, stdin=json.dumps(calls)))


@pytest.fixture(scope="module")
def backend(lab: LabUnderTest) -> Iterator[Backend]:
    """This checkout's hpk on the lab, in a directory whose name holds spaces and quotes."""
    directory = f"/home/alice/back end '{secrets.token_hex(4)}'"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(ROOT / "hpk", "package/hpk", filter=_sources)
        tar.add(Path(__file__).with_name("backend_calls.py"), "package/calls.py")
    backend = Backend(lab, directory)
    payload = base64.b64encode(buffer.getvalue()).decode()
    backend.run([PYTHON, "-c", UNPACK, directory], stdin=payload)
    yield backend
    backend.run(["rm", "-rf", directory])


def _sources(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 20001
    return None if "__pycache__" in member.name else member


def job_name(kind: str) -> str:
    return f"test/{kind}@{secrets.token_hex(8)}"


def test_version_and_partitions(backend: Backend) -> None:
    version, partitions = backend.calls(("version", {}), ("partitions", {}))
    assert re.fullmatch(r"[0-9]{2}\.[0-9]{2}\.[0-9]+", version["value"])
    main, debug = partitions["value"]
    assert (main["name"], main["is_default"], main["is_up"]) == ("main", True, True)
    assert (main["max_time_s"], main["default_time_s"]) == (86400, 3600)
    assert len(main["nodes"]) * main["max_node_cpus"] == main["total_cpus"]
    assert main["max_node_gpus"] * len(main["nodes"]) == main["gpus"] > 0
    assert (debug["name"], debug["is_default"], debug["max_time_s"]) == ("debug", False, 1800)


def test_how_jobs_end(backend: Backend) -> None:
    began_s = time.time()
    scripts = {
        "ok": "true",
        "three": "exit 3",
        "killed": "kill -9 $$",
        "oom": f"exec {PYTHON} -c 'x = bytearray(300 << 20)'",
        "oom-step": f"srun {PYTHON} -c 'x = bytearray(300 << 20)'; exit $?",
        "no-output": "#SBATCH --output=/nonexistent/directory/x\ntrue",
    }
    names = {kind: job_name(kind) for kind in scripts}
    submits = [
        ("submit", {"text": f"{HEAD}#SBATCH --job-name={names[kind]}\n{body}\n"})
        for kind, body in scripts.items()
    ]
    refs = [{"ref": index} for index in range(len(submits))]
    *ids, jobs, found, nothing, unknown = backend.calls(
        *submits,
        ("wait", {"ids": refs, "states": ENDED}),
        ("recover", {"name": names["three"], "since_s": began_s, "directory": "gone"}),
        ("recover", {"name": job_name("nobody"), "since_s": began_s, "directory": "gone"}),
        ("jobs", {"ids": [3999999999]}),
    )
    ended = {
        kind: jobs["value"][str(answer["value"])] for kind, answer in zip(scripts, ids, strict=True)
    }
    # Where its step was out of memory, a job is so only if slurmctld hears of the step in time.
    assert ended["oom-step"].pop("state") in ("OUT_OF_MEMORY", "FAILED")
    assert {kind: job["state"] for kind, job in ended.items() if "state" in job} == {
        "ok": "COMPLETED",
        "three": "FAILED",
        "killed": "FAILED",
        "oom": "OUT_OF_MEMORY",
        "no-output": "FAILED",
    }
    assert {kind: job["name"] for kind, job in ended.items()} == names
    assert (ended["three"]["exit_code"], ended["three"]["signal"]) == (3, 0)
    assert (ended["killed"]["exit_code"], ended["killed"]["signal"]) == (0, 9)
    assert ended["oom"]["signal"] == 0
    assert ended["ok"]["start_time_s"] >= int(began_s)
    assert ended["ok"]["end_time_s"] >= ended["ok"]["start_time_s"]
    assert found["value"] == ids[1]["value"]
    assert nothing["value"] is None
    assert all("script.sh" in job["command"] for job in ended.values())
    assert unknown["value"] == {}


def test_queued_and_cancelled(backend: Backend) -> None:
    name = job_name("held")
    answers = backend.calls(
        ("submit", {"text": f"{HEAD}#SBATCH --hold --job-name={name}\ntrue\n"}),
        ("jobs", {"ids": [{"ref": 0}]}),
        ("recover", {"name": name, "since_s": time.time(), "directory": "gone"}),
        ("cancel", {"ids": [{"ref": 0}, 3999999999]}),
        ("wait", {"ids": [{"ref": 0}], "states": ["CANCELLED"]}),
        ("cancel", {"ids": [{"ref": 0}]}),
        ("cancel", {"ids": [3999999999]}),
    )
    job_id = answers[0]["value"]
    queued = answers[1]["value"][str(job_id)]
    assert (queued["state"], queued["reason"], queued["nodes"]) == ("PENDING", "JobHeldUser", "")
    assert (queued["name"], queued["exit_code"]) == (name, None)
    assert answers[2]["value"] == job_id
    cancelled = answers[4]["value"][str(job_id)]
    assert (cancelled["name"], cancelled["start_time_s"]) == (name, None)
    assert [answers[number].get("value") for number in (3, 5, 6)] == [{}] * 3


def test_a_renamed_job_is_found_by_what_was_submitted(backend: Backend) -> None:
    name = job_name("before")
    submitted, jobs = backend.calls(
        ("submit", {"text": f"{HEAD}#SBATCH --hold --job-name={name}\ntrue\n"}),
        ("jobs", {"ids": [{"ref": 0}]}),
    )
    job_id = submitted["value"]
    command = jobs["value"][str(job_id)]["command"]
    directory = str(Path(command).parent)
    assert f"{backend.directory}/attempt-" in command
    backend.shell(f"scontrol update jobid={job_id} name=after")
    backend.shell(f"rm {shlex.quote(directory)}/sbatch.out")
    begun = {"name": name, "since_s": time.time(), "directory": directory}
    queued, cancelled, ended, recovered = backend.calls(
        ("recover", begun),
        ("cancel", {"ids": [job_id]}),
        ("wait", {"ids": [job_id], "states": ["CANCELLED"]}),
        ("recover", begun),
    )
    assert queued["value"] == recovered["value"] == job_id
    assert cancelled["value"] == {}
    shown = ended["value"][str(job_id)]
    assert (shown["name"], command in shown["command"]) == ("after", True)


def test_many_jobs_are_cancelled_at_once(backend: Backend) -> None:
    text = f"{HEAD}#SBATCH --hold --job-name={job_name('many')}\ntrue\n"
    refs = [{"ref": number} for number in range(12)]
    *_, cancelled, ended = backend.calls(
        *(("submit", {"text": text}) for _ in refs),
        ("cancel", {"ids": [*refs, 3999999999]}),
        ("wait", {"ids": refs, "states": ["CANCELLED"]}),
    )
    assert cancelled["value"] == {}
    assert len(ended["value"]) == len(refs)


def test_a_name_with_newlines_and_bars_disturbs_nobody(backend: Backend) -> None:
    name = job_name("quiet")
    odd = "a|b\n7|COMPLETED|None|n1|1|2|forged"
    odd_id = backend.shell(
        f"sbatch --parsable --hold --mem=100M -J {shlex.quote(odd)} --wrap true"
    ).strip()
    answers = backend.calls(
        ("submit", {"text": f"{HEAD}#SBATCH --hold --job-name={name}\ntrue\n"}),
        ("jobs", {"ids": [{"ref": 0}, int(odd_id), 7]}),
        ("cancel", {"ids": [{"ref": 0}]}),
        ("cancel", {"ids": [int(odd_id)]}),
    )
    jobs = answers[1]["value"]
    assert jobs[odd_id]["name"] == odd
    assert jobs[str(answers[0]["value"])]["name"] == name
    assert jobs.get("7", {}).get("name") != "forged"


REFUSALS = {
    "--account=nope": ("PermanentError", "SlurmInvalidAccount"),
    "--qos=nope": ("PermanentError", "SlurmInvalidQos"),
    "--partition=nope": ("PermanentError", "SlurmInvalidPartition"),
    "--constraint=nope": ("PermanentError", "SlurmInvalidConstraint"),
    "--gres=fpga:1": ("PermanentError", "SlurmInvalidGres"),
    "--gres=gpu:99": ("PermanentError", "SlurmUnsatisfiable"),
    "--mem=9000G": ("PermanentError", "SlurmUnsatisfiable"),
    "--reservation=nope": ("PermanentError", "SlurmInvalidReservation"),
    "--licenses=nope:1": ("PermanentError", "SlurmInvalidLicenses"),
    "--segment=3": ("PermanentError", "SlurmRefused"),
    "--no-such-option": ("PermanentError", "SlurmRefused"),
}


def test_what_slurm_refuses(backend: Backend) -> None:
    answers = backend.calls(
        *(("submit", {"text": f"{HEAD}#SBATCH {option}\ntrue\n"}) for option in REFUSALS)
    )
    found = {
        option: tuple(answer["error"][:2])
        for option, answer in zip(REFUSALS, answers, strict=True)
        if "error" in answer
    }
    assert found == REFUSALS


def test_a_controller_that_does_not_answer(backend: Backend) -> None:
    conf = "ClusterName=x\nSlurmctldHost=login(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=2\n"
    backend.shell(f"printf %s {shlex.quote(conf)} > dead.conf")
    answers = backend.calls(
        ("submit", {"text": f"{HEAD}true\n"}),
        ("jobs", {"ids": [1]}),
        ("partitions", {}),
        env={"SLURM_CONF": f"{backend.directory}/dead.conf"},
    )
    assert [tuple(answer["error"][:2]) for answer in answers] == [
        ("TransientError", "Unreachable")
    ] * 3


def test_sbatch_takes_every_option_of_the_table(backend: Backend) -> None:
    lines = []
    for name, option in ALLOWED.items():
        line = directive(SbatchOption(name, option.example if option.pattern else None, "test"))
        text = shlex.quote(f"#!/bin/bash\n#SBATCH {line}\ntrue\n")
        lines.append(
            f"printf %s {text} > o.sh; echo '== {name}'; sbatch -v --test-only o.sh 2>&1 || true"
        )
    output = backend.shell("\n".join(lines))
    said = dict(part.split("\n", 1) for part in output.split("== ")[1:])
    assert said.keys() == ALLOWED.keys()
    not_taken = {
        name
        for name, text in said.items()
        if not re.search(rf"^sbatch: {re.escape(name)} *: ", text, re.MULTILINE)
    }
    assert not_taken <= NEWER


NASTY = "a b'c\"d#e\\f%j-é$(touch canary)`touch canary`;touch canary"


@pytest.mark.parametrize("place", ["plain", "per%cent", NASTY, NASTY.replace("\\", "")])
def test_the_batch_script_says_what_the_plan_says(backend: Backend, place: str) -> None:
    root = f"{backend.directory}/{place}"
    comment = "# 'x' \"y\" \\ $(touch canary) `touch canary` %j"
    plan = PodPlan(
        pod=PodRef("test", "nasty", PodUid("u")),
        partition="debug",
        options=(
            SbatchOption("comment", comment, "test"),
            SbatchOption("mem", "100M", "test"),
            SbatchOption("no-requeue", None, "test"),
        ),
        containers=(),
        volumes=(),
        restart_policy=RestartPolicy.NEVER,
        grace_period_s=1,
        active_deadline_s=None,
        runtime="apptainer",
    )
    script = render_script(
        plan,
        job_name=job_name("nasty"),
        layout=AttemptLayout(root),
        python=f"{root}/python",
        supervisor=f"{root}/supervisor.pyz",
    )
    python = '#!/bin/sh\nprintf "%s\\n" "$@"; pwd; /usr/bin/env\n'
    backend.shell(
        f"mkdir -p {shlex.quote(root)}; cd {shlex.quote(root)}; "
        f"printf %s {shlex.quote(python)} > python; chmod 700 python"
    )
    leaks = {"SBATCH_PARTITION": "main", "SBATCH_EXPORT": "NONE", "SLURM_JOB_ID": "1", "LEAK": "x"}
    submitted, ended = backend.calls(
        ("submit", {"text": script}),
        ("wait", {"ids": [{"ref": 0}], "states": ENDED}),
        env=leaks,
    )
    job_id = str(submitted["value"])
    assert ended["value"][job_id]["state"] == "COMPLETED"
    lines = backend.shell(f"cat {shlex.quote(root + '/job.log')}").splitlines()
    assert lines[:6] == ["-I", "-S", f"{root}/supervisor.pyz", "run", "--attempt-dir", root]
    assert lines[6] == "/"
    variables = dict(line.split("=", 1) for line in lines[7:])
    assert variables["SLURM_JOB_ID"] == job_id
    assert variables["SLURM_JOB_PARTITION"] == "debug"
    assert variables["SLURM_EXPORT_ENV"] == "ALL"
    assert not {"LEAK", "SBATCH_EXPORT", "SLURM_GET_USER_ENV", "SLURM_TIME_FORMAT"} & set(variables)
    shown = backend.shell(f"scontrol show job {job_id}")
    assert f"Comment={comment} \n" in shown or f"Comment={comment}\n" in shown
    assert "Requeue=0" in shown
    assert backend.shell("find . -name canary") == ""
