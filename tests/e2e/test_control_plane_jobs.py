"""The control plane inside a Slurm job, and its pods' jobs when it stops."""

from __future__ import annotations

import pytest

from bootstrap.lab.layout import LOGIN
from tests.e2e.homes import Home, Json, component_pids, job_state
from tests.waiting import eventually


def _start_job(home: Home) -> int:
    home.run(
        "bash", "-c", 'cd "$1" && hpk up --print-batch-script > hpk-start.sh', "-", home.directory
    )
    submitted = home.run(
        "sbatch", "--parsable", f"--chdir={home.directory}", f"{home.directory}/hpk-start.sh"
    )
    job = int(submitted.stdout)
    eventually(lambda: home.read_json("endpoint.json"), what="endpoint.json")
    return job


def test_in_a_job_found_and_stopped_from_the_login_node(home: Home) -> None:
    job = _start_job(home)
    home.run("hpk", "status", "--wait", timeout_s=600)
    home.run("kubectl", "run", "p", "--image=registry.lab:5000/busybox:latest", "--", "true")
    status = home.status()
    assert status["job_id"] == job
    assert status["host"] != LOGIN
    again = home.run("hpk", "up")
    assert f"Slurm job {job}" in again.stdout
    assert home.run("kubectl", "get", "--raw", "/readyz").stdout == "ok"
    leaked = _kubelet_slurm_variables(home, status)
    assert leaked == []
    home.run("hpk", "down")
    eventually(lambda: job_state(home, job) == "COMPLETED", what="the job has ended well")
    assert home.processes(status["host"]) == []


def _kubelet_slurm_variables(home: Home, status: Json) -> list[str]:
    text = home.run(
        "cat", f"/proc/{component_pids(status)['kubelet']}/environ", host=status["host"]
    ).stdout
    names = [entry.partition("=")[0] for entry in text.split("\0")]
    return [
        name for name in names if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
    ]


def test_a_cancelled_job_stops_in_order(home: Home) -> None:
    job = _start_job(home)
    home.run("scancel", str(job))
    eventually(lambda: job_state(home, job) == "CANCELLED", what="the job has ended")
    eventually(
        lambda: (home.read_json("control-plane/state.json") or {}).get("phase") == "stopped",
        what="stopped in order",
    )
    status = home.status(exit_code=3)
    assert status["problems"] == [], "it released its lock, so it did not die"
    home.run("hpk", "up")  # and another can follow on another host


@pytest.mark.long
def test_one_that_died_on_another_host_is_followed_when_its_heartbeat_stays_out(
    home: Home,
) -> None:
    job = _start_job(home)
    endpoint = home.read_json("endpoint.json")
    assert endpoint is not None
    home.run("kill", "-9", str(endpoint["pid"]), host=endpoint["host"])
    eventually(lambda: job_state(home, job) not in ("RUNNING", ""), what="the job has ended")
    status = home.status(exit_code=3)
    assert "it died on host" in status["problems"][0]
    up = home.run("hpk", "up")
    assert "has been silent" in up.stderr
    assert home.status()["host"] == LOGIN


def test_jobs_are_kept_or_cancelled_as_the_user_says(home: Home) -> None:
    bystander = home.run(
        "sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 600"
    ).stdout.strip()
    try:
        home.run("hpk", "up")
        home.run(
            "kubectl",
            "run",
            "p",
            "--restart=Never",
            "--image=registry.lab:5000/busybox:latest",
            "--",
            "sleep",
            "600",
        )
        eventually(lambda: home.status()["jobs"], timeout_s=90, what="the pod's job")
        kept = home.run("hpk", "down", "--keep-jobs")
        (job,) = home.status(exit_code=3)["jobs"]
        assert str(job["job_id"]) in kept.stdout
        assert "default/p" in kept.stdout
        assert job["state"] in ("PENDING", "CONFIGURING", "RUNNING")

        cancelled = home.run("hpk", "down", "--cancel-jobs")
        assert f"cancelled {job['job_id']}" in cancelled.stdout
        eventually(
            lambda: job_state(home, job["job_id"]) not in ("RUNNING", "PENDING"),
            what="the pod's job has ended",
        )
        assert job_state(home, int(bystander)) in ("RUNNING", "PENDING")
    finally:
        home.run("scancel", bystander)
