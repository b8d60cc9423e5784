"""Runs in the lab: submits one attempt to Slurm and plays its kubelet, as JSON on standard input
says. Answers with JSON on standard output.

Input: ``container`` and ``plan`` (changed fields), ``sbatch`` (options), ``steps``: a list of
[name, argument]: ``running``; ``log`` (until the text is in the log; ``job_log`` alike for the
supervisor's own); ``stop`` (seconds); ``file`` (seconds); ``shell`` (a command, run beside the
attempt, JOB replaced, its output is kept); ``volume`` (a new token); ``finished``; ``ended``
(Slurm knows no process of the job any more).
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from hpk.model import codec, frames  # noqa: E402
from hpk.model.bundle import Bundle  # noqa: E402
from hpk.model.plan import ContainerPlan, ProjectedVolume, VolumeMount  # noqa: E402
from hpk.supervisor_zipapp import build_zipapp  # noqa: E402
from tests.supervisor_peer import Peer, container, env, volume, write_attempt  # noqa: E402

PATIENCE_S = 90
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SCRIPT = """#!/bin/bash
export SLURM_EXPORT_ENV=ALL
exec /usr/bin/python3 -I -S "$1" run --attempt-dir "$2"
"""


class Run:
    """One attempt."""

    def __init__(self, scenario: dict[str, Any], address: str) -> None:
        self.directory = HERE / f"run-{secrets.token_hex(4)}"
        self.directory.mkdir()
        self.peer = Peer(self.directory, address)
        self.peer.bundle = bundle("s3cr3t-one")
        fields = codec.encode(container(tuple(scenario["argv"]), scenario["image"]))
        fields.update(
            mounts=[codec.encode(VolumeMount("kube", MOUNT, True))], **scenario["container"]
        )
        self.layout = write_attempt(
            self.directory / "attempt",
            self.peer,
            codec.decode(ContainerPlan, fields),
            local_root="/tmp",
            runtime_path=("/opt/software/apptainer/bin",),
            volumes=(ProjectedVolume("kube", 0o644, (), (), ()),),
            **scenario["plan"],
        )
        program = self.directory / "supervisor.pyz"
        program.write_bytes(build_zipapp())
        script = self.directory / "script.sh"
        script.write_text(SCRIPT)
        options = ["--parsable", "--no-requeue", "--export=NONE", f"-o{self.layout.job_output}"]
        submitted = subprocess.run(
            ["sbatch", *options, *scenario["sbatch"], script, program, self.layout.root],
            capture_output=True,
            text=True,
        )
        if submitted.returncode:
            raise RuntimeError(submitted.stderr)
        self.job = submitted.stdout.strip()
        self.outputs: list[str] = []

    def step(self, name: str, argument: Any) -> None:
        if name == "running":
            self.peer.wait_running()
        elif name == "log":
            wait_for(lambda: argument in self.log())
        elif name == "job_log":
            wait_for(lambda: argument in Path(self.layout.job_output).read_text())
        elif name == "stop":
            self.peer.send(frames.Stop(argument))
        elif name == "file":
            Path(self.layout.stop_request).write_text(codec.dumps(frames.Stop(argument)))
        elif name == "volume":
            self.peer.send(frames.BundleReply(0, bundle(argument)))
        elif name == "shell":
            command = argument.replace("JOB", self.job)
            done = subprocess.run(
                ["bash", "-c", command], cwd=self.directory, capture_output=True, text=True
            )
            self.outputs.append(done.stdout + done.stderr)
        elif name == "finished":
            self.peer.wait_finished()
        elif name == "ended":
            wait_for(lambda: not squeue(self.job))

    def log(self) -> str:
        paths = sorted(Path(self.layout.logs).rglob("*.log"))
        return "".join(path.read_text(errors="replace") for path in paths)

    def answer(self) -> dict[str, Any]:
        record = Path(self.layout.record)
        job_log = Path(self.layout.job_output)
        return {
            "record": json.loads(record.read_text()) if record.exists() else None,
            "log": self.log(),
            "job": self.job,
            "job_log": job_log.read_text() if job_log.exists() else "",
            "outputs": self.outputs,
            "sacct": self.accounting(),
        }

    def accounting(self) -> list[list[str]]:
        """What sacct says of the job, once it has heard of its end."""
        argv = ["sacct", "-nP", "-j", self.job, "-o", "jobid,state,exitcode,nodelist,ntasks"]
        rows: list[list[str]] = []

        def has_heard() -> bool:
            told = subprocess.run(argv, capture_output=True, text=True).stdout
            rows[:] = [line.split("|") for line in told.splitlines()]
            return bool(rows) and rows[0][1] not in ("PENDING", "RUNNING", "COMPLETING")

        wait_for(has_heard)
        return rows


def bundle(token: str) -> Bundle:
    return Bundle((volume("kube", token=token),), env(KUBERNETES_SERVICE_HOST="127.0.0.1"))


def squeue(job: str) -> str:
    return subprocess.run(["squeue", "-h", "-j", job], capture_output=True, text=True).stdout


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.1)


def main() -> None:
    scenario = json.load(sys.stdin)
    run = Run(scenario, sys.argv[1])
    failure = ""
    try:
        for name, argument in scenario["steps"]:
            failure = f"{name} {argument}"
            run.step(name, argument)
        failure = ""
    except (TimeoutError, OSError) as problem:
        failure += f": {problem!r}"
    finally:
        subprocess.run(["scancel", run.job])
        wait_for(lambda: not squeue(run.job))
        run.peer.close()
    json.dump(run.answer() | {"failure": failure}, sys.stdout)
    shutil.rmtree(run.directory)


main()
