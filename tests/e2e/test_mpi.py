"""An MPI Job proves itself: its world, its hosts, its sum, and how it ends."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.e2e.cluster import LAMMPS, Cluster, Json, pod

FLAGS = {
    "slurm-job.hpk.io/flags": "--ntasks=4 --ntasks-per-node=2",
    "slurm-job.hpk.io/mpi-flags": "true",
}
RESOURCES: Json = {"requests": {"cpu": "1", "memory": "128Mi"}}


def mpi_pod(name: str, *command: str) -> Json:
    return pod(name, *command, image=LAMMPS, annotations=FLAGS, resources=RESOURCES)


def exit_code(found: Json) -> Any:
    return found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]


def test_an_mpi_job_is_one_slurm_job_with_one_step_on_two_hosts(cluster: Cluster) -> None:
    cluster.create(mpi_pod("proof", "mpi-proof"))
    found = cluster.wait_phase("proof", "Succeeded", "Failed")
    log = cluster.logs("proof")
    assert found["status"]["phase"] == "Succeeded", log
    proof = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    assert proof == {"world": 4, "hosts": 2, "sum": 10, "expected": 10, "ok": True}
    assert exit_code(found) == 0
    (job,) = cluster.job_ids("proof")
    steps = cluster.run(["sacct", "-n", "-P", "-j", str(job), "-o", "JobID,NTasks,NNodes,State"])
    rows = [row.split("|") for row in steps.stdout.split()]
    ranks = [row for row in rows if "." in row[0] and row[0].split(".")[1].isdigit()]
    assert [(row[1], row[2], row[3]) for row in ranks] == [("4", "2", "COMPLETED")]


def test_a_job_controller_sees_an_mpi_run_complete(cluster: Cluster) -> None:
    template = mpi_pod("unused", "mpi-proof")
    job: Json = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "proof"},
        "spec": {
            "backoffLimit": 0,
            "template": {
                "metadata": {"annotations": FLAGS},
                "spec": template["spec"],
            },
        },
    }
    cluster.create(job)
    cluster.kubectl("wait", "job/proof", "--for=condition=complete", "--timeout=90s")
    assert '"world":4' in cluster.kubectl("logs", "job/proof").stdout


def test_the_exit_code_of_a_rank_is_the_containers(cluster: Cluster) -> None:
    cluster.create(mpi_pod("three", "mpi-proof", "--exit", "2:3"))
    found = cluster.wait_phase("three", "Succeeded", "Failed")
    assert found["status"]["phase"] == "Failed"
    assert exit_code(found) == 3


def test_a_missing_program_is_a_start_error_that_names_it(cluster: Cluster) -> None:
    cluster.create(mpi_pod("missing", "no-such-program"))
    found = cluster.wait_phase("missing", "Succeeded", "Failed")
    terminated = found["status"]["containerStatuses"][0]["state"]["terminated"]
    assert found["status"]["phase"] == "Failed"
    assert (terminated["reason"], terminated["exitCode"]) == ("StartError", 128)
    assert "no-such-program" in terminated["message"]


PLACEMENTS = {
    "mpirun -np 4 --map-by ppr:2:node": ["a", "a", "b", "b"],
    "--map-by node": ["a", "b", "a", "b"],
    "--map-by slot --bind-to none": ["a", "a", "b", "b"],
    "-ppn 2 -np 4 --bind-to core --tag-output": ["a", "a", "b", "b"],
    "mpiexec -N 2 --bind-to socket --report": [],
    "-np 2 --map-by ppr:1:node:PE=2": ["a", "b"],
}
"""By the value of mpi-flags: each rank's host, by letters; none where it is refused."""
NODES_AND_TASKS = "--ntasks=4 --ntasks-per-node=2"


def test_mpiexecs_options_place_the_ranks(cluster: Cluster) -> None:
    names = {flags: f"placed-{number}" for number, flags in enumerate(PLACEMENTS)}
    own_size = ("mpirun", "-ppn", "-np")
    for flags, name in names.items():
        made = mpi_pod(name, "mpi-proof")
        annotations = {"slurm-job.hpk.io/mpi-flags": flags}
        if not flags.startswith(own_size):
            annotations["slurm-job.hpk.io/flags"] = NODES_AND_TASKS
        made["metadata"]["annotations"] = annotations
        cluster.create(made)
    found = cluster.wait_pods(names.values())
    for flags, expected in PLACEMENTS.items():
        status = found[names[flags]]["status"]
        if not expected:
            assert status["reason"] == "InvalidAnnotation"
            assert "--report" in status["message"]
            continue
        log = cluster.logs(names[flags])
        assert status["phase"] == "Succeeded", (flags, log)
        assert placed(log) == expected, flags
        if "--tag-output" in flags:
            assert any(line.startswith("0: rank 0 of 4") for line in log.splitlines()), log


def placed(log: str) -> list[str]:
    """Each rank's host, the first one called a."""
    by_rank = {int(rank): host for rank, host in re.findall(r"rank (\d+) of \d+ on (\S+)", log)}
    hosts = [by_rank[rank] for rank in sorted(by_rank)]
    letters = {host: "abcd"[number] for number, host in enumerate(dict.fromkeys(hosts))}
    return [letters[host] for host in hosts]
