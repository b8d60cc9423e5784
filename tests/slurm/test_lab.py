"""The lab is the cluster it claims to be: isolation, accounting, limits, GRES, PMIx, registry."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap.lab.layout import LOGIN
from tests.labs import LAB
from tests.slurm.conftest import LabUnderTest, eventually

CLI = [sys.executable, "-m", "hpk.cli.main", "lab", "--name", LAB]
NASTY = "two words; $(touch /tmp/never) `id` 'quoted' \"twice\"\nnext line ünïcode *"


def hpk_lab(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, run outside the lab."""
    return subprocess.run(
        [*CLI, *words],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=120,
    )


def accounted(lab: LabUnderTest, job_name: str, fields: str) -> list[str]:
    """What accounting says of alice's jobs of this name; it is written a little after the fact."""
    argv = ["sacct", "-nXP", f"--name={job_name}", "-o", fields]
    return lab.run(LOGIN, "alice", argv, check=True).stdout.split()


def test_up_twice_changes_nothing(lab: LabUnderTest) -> None:
    before = lab.machine.init_pid(LOGIN)
    done = hpk_lab("up")
    assert done.returncode == 0, done.stderr
    assert "nothing was changed" in done.stdout
    assert lab.machine.init_pid(LOGIN) == before


def test_up_refuses_another_size(lab: LabUnderTest) -> None:
    done = hpk_lab("up", "--nodes", str(lab.machine.lab.nodes + 1))
    assert done.returncode == 1
    assert "hpk lab down" in done.stderr


def test_status_as_json(lab: LabUnderTest) -> None:
    done = hpk_lab("status", "-o", "json")
    status = json.loads(done.stdout)
    assert done.returncode == 0
    assert status["name"] == LAB
    assert [host["name"] for host in status["hosts"]] == [LOGIN, "n1", "n2", "n3", "n4"]
    assert all(status["daemons"].values())


def test_shell_is_the_user_on_login_by_default(lab: LabUnderTest) -> None:
    done = hpk_lab("shell", "--", "sh", "-c", 'hostname; id -un; pwd; echo "$PATH"')
    host, user, cwd, path = done.stdout.splitlines()
    assert (host, user, cwd) == (LOGIN, "alice", "/home/alice")
    assert path.split(":")[:2] == ["/opt/software/bin", "/opt/software/apptainer/bin"]


def test_shell_passes_words_stdin_and_exit_code(lab: LabUnderTest) -> None:
    script = "import sys; print(ascii(sys.argv[1:])); print(sys.stdin.read()); sys.exit(7)"
    argv = ("python3", "-c", script, "--user", "", NASTY, "--")
    done = hpk_lab("shell", "n1", "--user", "bob", "--", *argv, stdin="from outside")
    assert done.returncode == 7, done.stderr
    words, text = done.stdout.splitlines()
    assert words == ascii(["--user", "", NASTY, "--"])
    assert text == "from outside"


def test_shell_refuses_unknown_host_and_user(lab: LabUnderTest) -> None:
    unknown_host = hpk_lab("shell", "n99", "--", "true")
    unknown_user = hpk_lab("shell", "--user", "mallory", "--", "true")
    assert unknown_host.returncode == unknown_user.returncode == 1
    assert "n99" in unknown_host.stderr
    assert "mallory" in unknown_user.stderr


def test_shell_takes_nothing_of_the_callers_environment(lab: LabUnderTest) -> None:
    done = subprocess.run(
        [*CLI, "shell", "--", "env"],
        env={**os.environ, "SECRET_OF_ROOT": "1", "SLURM_JOB_ID": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    names = {line.split("=")[0] for line in done.stdout.splitlines()}
    assert names == {"HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH"}


@pytest.mark.parametrize("host", [LOGIN, "n1"])
def test_a_host_sees_nothing_of_the_machine(lab: LabUnderTest, host: str) -> None:
    checkout = Path(__file__).resolve().parents[2]
    probes = [checkout, Path("/root/.cache"), lab.machine.lab.state, Path("/etc/ssl/private")]
    for probe in probes:
        done = lab.run(host, "root", ["test", "-e", str(probe)])
        assert done.returncode == 1, f"{probe} is visible on {host}"
    # By its name no file of ours: another test may look for those at this moment.
    mark = Path("/tmp") / f"seen-from-outside-{secrets.token_hex(6)}"
    mark.touch()
    try:
        assert lab.run(host, "root", ["test", "-e", str(mark)]).returncode == 1
    finally:
        mark.unlink()
    mounts = lab.run(host, "root", ["cat", "/proc/self/mounts"], check=True).stdout
    assert len(mounts.splitlines()) < 40
    links = lab.run(host, "root", ["ip", "-o", "link"], check=True).stdout.splitlines()
    assert [line.split()[1].split("@")[0].rstrip(":") for line in links] == ["lo", "eth0"]


def test_hosts_share_what_a_site_shares_and_nothing_else(lab: LabUnderTest) -> None:
    name = f"mark-{secrets.token_hex(6)}"
    for directory in ("/tmp", "/var/tmp", "/run", "/dev/shm", "/var/lib", "/root"):
        user = "alice" if directory in ("/tmp", "/var/tmp", "/dev/shm") else "root"
        path = f"{directory}/{name}"
        lab.run(LOGIN, user, ["touch", path], check=True)
        seen = lab.run("n1", "root", ["test", "-e", path]).returncode == 0
        lab.run(LOGIN, user, ["rm", path], check=True)
        assert not seen, f"{directory} is shared"
    lab.run(LOGIN, "alice", ["touch", name], check=True)
    lab.run("n1", "alice", ["rm", f"/home/alice/{name}"], check=True)
    for directory in ("/opt/software", "/usr", "/usr/local", "/opt/software/apptainer"):
        done = lab.run("n1", "root", ["touch", f"{directory}/{name}"])
        assert done.returncode != 0
        assert "Read-only" in done.stderr


def test_users_exist_in_the_lab_only_and_cannot_read_each_other(lab: LabUnderTest) -> None:
    passwd = Path("/etc/passwd").read_text()
    assert not any(line.startswith(("alice:", "bob:")) for line in passwd.splitlines())
    assert lab.run("n2", "bob", ["ls", "/home/alice"]).returncode != 0
    for secret in ("/etc/munge/munge.key", "/etc/slurm/slurmdbd.conf", "/etc/shadow"):
        done = lab.run(LOGIN, "alice", ["cat", secret])
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    done = lab.run(LOGIN, "alice", ["cat", "/run/docker-registry/registry.key"])
    assert done.returncode != 0


def test_nothing_of_it_listens_on_the_machine(lab: LabUnderTest) -> None:
    ports = {"6817", "6818", "6819", "3306"}
    table = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    assert not ports & {line.split()[3].rsplit(":", 1)[1] for line in table.splitlines()}
    inside = lab.run(LOGIN, "root", ["ss", "-Hltn"], check=True).stdout
    assert ":6817" in inside, "this test would not notice a listener"
    assert stat.S_IMODE(lab.machine.lab.private.stat().st_mode) == 0o700


def test_a_job_across_nodes_with_accounting(lab: LabUnderTest) -> None:
    done = lab.run(LOGIN, "alice", ["srun", "-N2", "-n2", "-J", "two", "hostname"], check=True)
    assert len(set(done.stdout.split())) == 2
    eventually(
        lambda: "COMPLETED|users|2" in accounted(lab, "two", "state,account,nnodes"),
        what="the job in accounting",
    )


def test_partitions_and_their_limits(lab: LabUnderTest) -> None:
    done = lab.run(LOGIN, "alice", ["sinfo", "-h", "-o", "%P %l %D %c"], check=True)
    assert done.stdout.split("\n")[:2] == ["main* 1-00:00:00 4 4", "debug 30:00 4 4"]
    refused = lab.run(LOGIN, "alice", ["sbatch", "-A", "nobody", "--wrap", "true"])
    assert refused.returncode != 0
    assert "account" in refused.stderr


def test_memory_is_limited(lab: LabUnderTest) -> None:
    argv = ["srun", "--mem=100", "-J", "hungry", "python3", "-c", "len(bytearray(400 << 20))"]
    assert lab.run(LOGIN, "alice", argv).returncode != 0
    eventually(lambda: "OUT_OF_MEMORY" in accounted(lab, "hungry", "state"), what="OUT_OF_MEMORY")


def test_gpus_are_counted(lab: LabUnderTest) -> None:
    argv = ["srun", "--gres=gpu:2", "printenv", "CUDA_VISIBLE_DEVICES"]
    assert lab.run(LOGIN, "bob", argv, check=True).stdout.strip() == "0,1"


def test_a_daemonised_child_does_not_outlive_its_job(lab: LabUnderTest) -> None:
    mark = f"86{secrets.randbelow(10**6):06d}"
    argv = ["srun", "-w", "n3", "sh", "-c", f"setsid -f sleep {mark}; pgrep -f 'sleep {mark}'"]
    assert lab.run(LOGIN, "alice", argv, check=True).stdout.split(), "it never ran"
    left = lab.run("n3", "root", ["pgrep", "-x", "-f", f"sleep {mark}"])
    assert left.returncode == 1, f"still there: {left.stdout}"


@pytest.fixture(scope="module")
def images(lab: LabUnderTest) -> dict[str, str]:
    """Reference → digest, of the registry's images."""
    done = hpk_lab("registry", "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["address"] == "registry.lab:5000"
    return {image["reference"]: image["digest"] for image in answer["images"]}


def test_the_registry_has_its_images(lab: LabUnderTest, images: dict[str, str]) -> None:
    names = {reference.split("/")[1] for reference in images}
    assert names >= {"busybox:latest", "lammps:latest", "entrypoint:latest"}


@pytest.mark.parametrize("host", [LOGIN, "n1", "n4"])
def test_python_trusts_the_registry(lab: LabUnderTest, images: dict[str, str], host: str) -> None:
    script = (
        "import urllib.request as u; "
        "print(u.urlopen('https://registry.lab:5000/v2/busybox/tags/list').read().decode())"
    )
    done = lab.run(host, "alice", ["python3", "-c", script], check=True)
    assert json.loads(done.stdout) == {"name": "busybox", "tags": ["latest"]}


def test_apptainer_runs_an_image_of_the_registry(lab: LabUnderTest, images: dict[str, str]) -> None:
    # Without --no-eval Apptainer lets a shell evaluate the arguments.
    argv = ["srun", "-w", "n1", "apptainer", "-q", "run", "--no-eval"]
    argv += ["docker://registry.lab:5000/entrypoint:latest", NASTY.split("\n")[0]]
    done = lab.run(LOGIN, "alice", argv, check=True)
    assert f"argument={NASTY.splitlines()[0]}" in done.stdout.splitlines()
    assert "GREETING=hello" in done.stdout


def test_podman_runs_an_image_of_the_registry(lab: LabUnderTest, images: dict[str, str]) -> None:
    place = f"/tmp/podman-{secrets.token_hex(4)}"
    podman = ["podman", "--root", f"{place}/s", "--runroot", f"{place}/r"]
    podman += ["--cgroup-manager=cgroupfs", "--events-backend=none", "--storage-opt"]
    podman += ["ignore_chown_errors=true", "--storage-driver=overlay"]
    run = ["run", "--rm", "--network=host", "--pid=host", "--ipc=host", "--uts=host"]
    run += ["--cgroups=no-conmon", "--cgroupns=host", "registry.lab:5000/busybox:latest"]
    # In a job, whose end is the end of podman's pause process too; all it writes lies in its place.
    job = ["srun", "--quiet", "-w", "n2", "env", f"TMPDIR={place}/t", f"XDG_RUNTIME_DIR={place}/x"]
    try:
        lab.run("n2", "alice", ["mkdir", "-p", f"{place}/t", f"{place}/x"], check=True)
        done = lab.run("login", "alice", [*job, *podman, *run, "echo", "from podman"])
    finally:
        # Its locks lie in shared memory, under one name for each user, and stay.
        locks = "find /dev/shm -maxdepth 1 -name 'libpod_*' -user alice -delete"
        lab.run("n2", "root", ["sh", "-c", f"rm -rf {place}; {locks}"], check=True)
    assert done.stdout.strip() == "from podman", done.stderr


@pytest.fixture(scope="module")
def lammps(lab: LabUnderTest, images: dict[str, str]) -> str:
    """The MPI image as a SIF on the shared file system."""
    path = f"/home/alice/lammps-{secrets.token_hex(4)}.sif"
    source = "docker://registry.lab:5000/lammps:latest"
    lab.run("n1", "alice", ["apptainer", "-q", "pull", path, source], timeout_s=300, check=True)
    return path


def test_mpi_over_pmix_across_nodes(lab: LabUnderTest, lammps: str) -> None:
    srun = ["srun", "--mpi=pmix", "-N2", "-n4", "--ntasks-per-node=2"]
    done = lab.run(LOGIN, "alice", [*srun, "apptainer", "-q", "exec", lammps, "mpi-proof"])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    # srun passes the ranks' lines on in whatever order they reach it.
    (summary,) = [json.loads(line) for line in lines if line.startswith("{")]
    assert summary == {"world": 4, "hosts": 2, "sum": 10, "expected": 10, "ok": True}
    assert len([line for line in lines if line.startswith("rank ")]) == 4
    failed = [*srun, "apptainer", "-q", "exec", lammps, "mpi-proof", "--exit", "2:3"]
    assert lab.run(LOGIN, "alice", failed).returncode == 3


def test_lammps_melts(lab: LabUnderTest, lammps: str) -> None:
    run = ["lmp", "-log", "none", "-in", "/usr/local/share/lammps/in.melt", "-var", "steps", "50"]
    srun = ["srun", "--mpi=pmix", "-N2", "-n4", "apptainer", "-q", "exec", lammps]
    done = lab.run(LOGIN, "alice", [*srun, *run], check=True)
    assert "on 4 procs for 50 steps with 4000 atoms" in done.stdout
    lab.run(LOGIN, "alice", ["rm", lammps], check=True)
