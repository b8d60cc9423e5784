"""The supervisor in real Slurm jobs of the lab, with real Apptainer containers."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.slurm.conftest import LabUnderTest


ROOT = Path(__file__).parents[2]
PYTHON = "/opt/software/hpk/bin/python"
DIRECTORY = "/home/alice/hpk supervisor 'test'"
UNPACK = """
import base64, io, sys, tarfile
with tarfile.open(fileobj=io.BytesIO(base64.b64decode(sys.stdin.read()))) as tar:
    tar.extractall(sys.argv[1])
"""
MPI: dict[str, Any] = {"mpi": {"launcher": "pmix", "options": []}}
TWO_NODES = ["--nodes=2", "--ntasks=4", "--ntasks-per-node=2"]
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


@dataclass(frozen=True)
class Site:
    """The lab with this checkout in alice's home.

    :param before: what was on each compute node (`seen_on`).
    """

    lab: LabUnderTest
    address: str
    runtime: str
    before: Mapping[str, frozenset[str]]

    def run(
        self,
        *argv: str,
        image: str = "busybox",
        steps: tuple[tuple[str, Any], ...] = (("finished", None), ("ended", None)),
        sbatch: list[str] | None = None,
        plan: dict[str, Any] | None = None,
        **container: Any,
    ) -> dict[str, Any]:
        """Run one pod through these steps; see supervisor_driver.py."""
        scenario = {
            "argv": argv,
            "image": f"{DIRECTORY}/{image}.sif",
            "steps": steps,
            "sbatch": ["--mem=300M", *(sbatch or [])],
            "plan": {"runtime": self.runtime, **(plan or {})},
            "container": container,
        }
        done = self.lab.run(
            "login",
            "alice",
            [PYTHON, f"{DIRECTORY}/supervisor_driver.py", self.address],
            stdin=json.dumps(scenario),
            timeout_s=300,
            check=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        assert not answer["failure"], answer
        return answer


@pytest.fixture(scope="module", params=["apptainer", "podman"])
def site(installed: Site, request: pytest.FixtureRequest) -> Site:
    return replace(installed, runtime=request.param)


@pytest.fixture(scope="module")
def installed(lab: LabUnderTest) -> Iterator[Site]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(ROOT / "hpk", "hpk", filter=_sources)
        for name in ("supervisor_peer", "peer_streams", "certificates"):
            tar.add(ROOT / "tests" / f"{name}.py", f"tests/{name}.py")
        tar.add(ROOT / "tests" / "slurm" / "supervisor_driver.py", "supervisor_driver.py")
    data = base64.b64encode(buffer.getvalue()).decode()
    lab.run("login", "alice", ["rm", "-rf", DIRECTORY], check=True)
    lab.run("login", "alice", ["mkdir", DIRECTORY], check=True)
    lab.run("login", "alice", [PYTHON, "-c", UNPACK, DIRECTORY], stdin=data, check=True)
    for name in ("busybox", "lammps"):
        argv = ["apptainer", "-q", "pull", f"{DIRECTORY}/{name}.sif"]
        source = f"docker://registry.lab:5000/{name}:latest"
        lab.run("login", "alice", [*argv, source], timeout_s=300, check=True)
    address = lab.run("login", "alice", ["getent", "hosts", "login"], check=True).stdout.split()[0]
    before = {host: frozenset(seen_on(lab, host)) for host in ("n1", "n2", "n3", "n4")}
    yield Site(lab, address, "apptainer", before)
    lab.run("login", "alice", ["rm", "-rf", DIRECTORY], check=True)


def _sources(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name else info


def texts(answer: dict[str, Any], stream: str = "stdout") -> list[str]:
    lines = [line.split(" ", 3) for line in answer["log"].splitlines()]
    return [fields[3] for fields in lines if fields[1] == stream]


def state(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["record"]["containers"][0]["state"]
    return found


def left_on(site: Site, host: str) -> str:
    """What came to a host since this module began."""
    return "".join(
        line for line in seen_on(site.lab, host) if line not in site.before.get(host, frozenset())
    )


def seen_on(lab: LabUnderTest, host: str) -> list[str]:
    """alice's processes and node-local files of supervisors on a host, a line each."""
    script = (
        "ps -u alice -o args= | grep -E '[a]ttempt-dir|[p]ause|[s]quashfuse|[o]verlay|[A]pptainer|"
        "[m]arker|[c]onmon|[p]odman'"
        "; find /tmp/hpk-20001 /dev/shm/hpk-20001 -mindepth 1 -not -name .lock; "
        "find /tmp /dev/shm /run /var/tmp -user alice -not -path '*/hpk-20001*'; true"
    )
    return lab.run(host, "root", ["bash", "-c", script]).stdout.splitlines(keepends=True)


def test_a_container_runs_and_its_exit_code_is_slurms(site: Site) -> None:
    answer = site.run("sh", "-c", "id -u; echo é; echo oops >&2; exit 3")
    assert texts(answer) == ["0", "é"]
    assert texts(answer, "stderr") == ["oops"]
    assert (state(answer)["reason"], state(answer)["exit_code"]) == ("Error", 3)
    assert answer["sacct"][0][1:3] == ["FAILED", "3:0"]
    assert answer["record"]["host"] == answer["sacct"][0][3]
    assert left_on(site, answer["record"]["host"]) == ""


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (1000, 1000), (65534, 0)])
def test_a_container_is_who_it_asked_to_be(site: Site, uid: int, gid: int) -> None:
    script = "id -u; id -g; id -un; touch /tmp/f && stat -c %u /tmp/f; echo w > /new && cat /new"
    answer = site.run("sh", "-c", script, uid=uid, gid=gid)
    lines = texts(answer)
    assert lines[:2] == [str(uid), str(gid)]
    assert lines[3:] == [str(uid), "w"]
    assert state(answer)["exit_code"] == 0


def test_a_container_is_alone_with_its_processes_and_files(site: Site) -> None:
    script = "ls /home /root; ps -o args | grep -c slurm[s]; cat /proc/1/comm; hostname; env"
    answer = site.run("sh", "-c", script, env=[{"name": "X", "value": "a\n$(b) 'c' \"d\" `e`"}])
    lines = texts(answer)
    assert "0" in lines
    assert not [line for line in lines if line.startswith(("SLURM", "APPTAINER", "SINGULARITY"))]
    assert "X=a" in lines
    assert "$(b) 'c' \"d\" `e`" in lines


def test_volumes_arrive_and_are_updated_live_and_rest_on_no_disk(site: Site) -> None:
    script = (
        f"cat {TOKEN}; echo; echo up; until grep -q two {TOKEN}; do sleep 0.1; done; "
        f"cat {TOKEN}; touch {TOKEN} 2>/dev/null || echo read-only"
    )
    answer = site.run(
        *("sh", "-c", script),
        steps=(
            ("log", "up"),
            ("shell", "grep -rl s3cr3t-one . | grep -v /logs/; echo searched"),
            ("volume", "s3cr3t-two"),
            ("finished", None),
        ),
    )
    assert texts(answer) == ["s3cr3t-one", "up", "s3cr3t-tworead-only"]
    assert answer["outputs"] == ["searched\n"]


def test_the_termination_message(site: Site) -> None:
    answer = site.run("sh", "-c", "echo why > /dev/termination-log; exit 1")
    assert state(answer)["message"] == "why\n"
    elsewhere = site.run(
        "sh", "-c", "echo here > /tmp/message", termination_message_path="/tmp/message"
    )
    assert state(elsewhere)["message"] == "here\n"
    fallback = site.run(
        "sh", "-c", "echo last words; exit 1", termination_message_policy="FallbackToLogsOnError"
    )
    assert state(fallback)["message"] == "last words\n"


def test_memory_over_the_limit_is_an_oom_kill(site: Site) -> None:
    script = "echo start; a=xxxxxxxx; while :; do a=$a$a; done"
    answer = site.run("sh", "-c", script)
    assert (state(answer)["reason"], state(answer)["exit_code"]) == ("OOMKilled", 137)
    assert texts(answer) == ["start"]


def test_an_image_that_is_not_there(site: Site) -> None:
    answer = site.run("true", image="nothing")
    assert state(answer)["reason"] == "StartError"
    assert "nothing.sif" in state(answer)["message"]


def test_cancelled_from_outside(site: Site) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    answer = site.run(
        *("sh", "-c", script),
        steps=(("log", "up"), ("shell", "scancel JOB"), ("finished", None), ("ended", None)),
    )
    assert texts(answer) == ["up", "bye"]
    assert answer["record"]["stop_cause"] == "signalled"
    assert answer["sacct"][0][1].startswith("CANCELLED")


def test_kill_dash_nine_of_the_supervisor_leaves_nothing(site: Site) -> None:
    script = "(setsid sleep 1000 &); trap '' TERM; echo up; while :; do sleep 1; done"
    kill = "srun --overlap --jobid=JOB -N1 -n1 pkill -9 -o -f attempt-dir"
    answer = site.run(
        "sh", "-c", script, "marker", steps=(("log", "up"), ("shell", kill), ("ended", None))
    )
    assert answer["record"]["phase"] == "running"
    host = answer["record"]["host"]
    processes = [line for line in left_on(site, host).splitlines() if not line.startswith("/")]
    assert processes == []
    again = site.run("true", sbatch=[f"--nodelist={host}"])
    assert "sweep what a dead job left" in again["job_log"]
    assert left_on(site, host) == ""


def test_an_mpi_run_spans_two_nodes_in_one_step(site: Site) -> None:
    answer = site.run("mpi-proof", image="lammps", sbatch=TWO_NODES, **MPI)
    (proof,) = (json.loads(line) for line in texts(answer) if line.startswith("{"))
    assert proof["world"] == 4
    assert proof["hosts"] == 2
    assert proof["ok"] is True
    assert state(answer)["exit_code"] == 0
    steps = [row for row in answer["sacct"] if row[0] not in (answer["job"],)]
    assert [row[0] for row in steps] == [f"{answer['job']}.batch", f"{answer['job']}.0"]
    assert steps[1][4] == "4"
    assert not texts(answer, "stderr")
    for host in ("n1", "n2", "n3", "n4"):
        assert answer["job"] not in left_on(site, host)


def test_ranks_share_a_user_namespace_and_get_pod_volumes_and_their_own_variables(
    site: Site,
) -> None:
    script = f'echo "$SLURM_PROCID $(hostname) $(readlink /proc/self/ns/user) $(cat {TOKEN}) $X"'
    answer = site.run(
        *("sh", "-c", script),
        image="lammps",
        sbatch=TWO_NODES,
        env=[{"name": "X", "value": "$(x) é"}],
        **MPI,
    )
    rows = sorted(line.split(" ", 3) for line in texts(answer))
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert len({row[1] for row in rows}) == 2
    assert len({(row[1], row[2]) for row in rows}) == 2
    assert {row[3] for row in rows} == {"s3cr3t-one $(x) é"}


def test_the_exit_code_of_a_run_is_that_of_the_rank_that_failed(site: Site) -> None:
    script = 'if [ "$SLURM_PROCID" = 2 ]; then exit 3; fi; exec sleep 1000'
    answer = site.run("sh", "-c", script, image="lammps", sbatch=TWO_NODES, **MPI)
    assert (state(answer)["reason"], state(answer)["exit_code"]) == ("Error", 3)
    assert answer["sacct"][0][1:3] == ["FAILED", "3:0"]


def test_a_missing_program_of_a_run_is_a_start_error(site: Site) -> None:
    answer = site.run("no-such-program", image="lammps", sbatch=TWO_NODES, **MPI)
    assert (state(answer)["reason"], state(answer)["exit_code"]) == ("StartError", 128)
    assert 'exec: "no-such-program": executable file not found' in state(answer)["message"]


def test_a_stop_reaches_every_rank(site: Site) -> None:
    script = (
        "trap 'echo bye $SLURM_PROCID; exit 0' TERM; echo up $SLURM_PROCID; "
        "while :; do sleep 0.1; done"
    )
    ups = tuple(("log", f"up {rank}") for rank in range(4))
    answer = site.run(
        *("sh", "-c", script),
        image="lammps",
        sbatch=TWO_NODES,
        steps=(*ups, ("stop", 60), ("finished", None)),
        **MPI,
    )
    assert sorted(line for line in texts(answer) if "bye" in line) == [
        f"bye {rank}" for rank in range(4)
    ]
    assert answer["record"]["stop_cause"] == "requested"


def test_ranks_of_a_node_may_read_each_others_memory(site: Site) -> None:
    script = """
        echo $$ > /tmp/pid.$SLURM_LOCALID
        other=/tmp/pid.$((1 - SLURM_LOCALID))
        until [ -s $other ]; do sleep 0.01; done
        exec 3</proc/$(cat $other)/mem && echo attached
        echo > /tmp/done.$SLURM_LOCALID
        until [ -e /tmp/done.$((1 - SLURM_LOCALID)) ]; do sleep 0.01; done
    """
    answer = site.run("sh", "-c", script, image="lammps", sbatch=TWO_NODES, **MPI)
    assert texts(answer) == ["attached"] * 4


def test_kill_dash_nine_of_the_supervisor_ends_a_run_on_all_nodes(site: Site) -> None:
    ups = tuple(("log", f"up {rank}") for rank in range(4))
    kill = "srun --overlap --jobid=JOB -N1 -n1 pkill -9 -o -f 'run --attempt-dir'"
    answer = site.run(
        *("sh", "-c", "trap '' TERM; echo up $SLURM_PROCID; while :; do sleep 1; done", "marker"),
        image="lammps",
        sbatch=TWO_NODES,
        steps=(*ups, ("shell", kill), ("ended", None)),
        **MPI,
    )
    assert answer["record"]["phase"] == "running"
    for host in ("n1", "n2", "n3", "n4"):
        left = [line for line in left_on(site, host).splitlines() if not line.startswith("/")]
        assert left == []


@pytest.mark.long
def test_a_requeued_job_runs_nothing_again(site: Site) -> None:
    requeue = (
        "scontrol update JobId=JOB Requeue=1 && scontrol requeue JOB && "
        "until squeue -h -j JOB -o %T | grep -qx PENDING; do sleep 0.2; done; "
        # Slurm may put the start off once more after the job is seen pending.
        "while squeue -h -j JOB -o %T | grep -qx PENDING; do "
        "scontrol update JobId=JOB StartTime=now; sleep 1; done"
    )
    answer = site.run(
        *("sh", "-c", "echo ran; exec sleep 1000"),
        steps=(
            ("log", "ran"),
            ("shell", requeue),
            ("job_log", "claimed already"),
            ("ended", None),
        ),
    )
    assert texts(answer) == ["ran"]
    assert answer["record"]["stop_cause"] == "signalled"
    assert "container started" not in answer["job_log"]  # Slurm truncates it for the second run
