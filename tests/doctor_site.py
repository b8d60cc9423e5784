"""What `hpk doctor` finds at a healthy site, and at sites that differ from it in one thing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hpk.model.job import Partition
from hpk.report.doctor.evaluate import evaluate
from hpk.report.doctor.facts import (
    Accounting,
    Exchange,
    Facts,
    Fuse,
    JobEnd,
    JobFacts,
    LoginFacts,
    NodeReport,
    Pong,
    ProcessLimits,
    Program,
    Round,
    SlurmFacts,
    Space,
)
from hpk.report.doctor.findings import Finding

GIB = 1 << 30
MAIN = Partition(
    name="main",
    is_default=True,
    is_up=True,
    nodes=("n1",),
    max_time_s=None,
    default_time_s=None,
    default_memory_per_cpu_bytes=None,
    default_memory_per_node_bytes=None,
    total_cpus=4,
    total_memory_bytes=GIB,
    gpus=0,
    max_node_cpus=4,
    max_node_memory_bytes=GIB,
    max_node_gpus=0,
    features=(),
)
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sacct", "sacctmgr")
SLURM = SlurmFacts(
    commands={name: f"/usr/bin/{name}" for name in COMMANDS},
    version="22.05.8",
    config={"KillWait": "30 sec", "AccountingStorageEnforce": "associations,limits"},
    partitions=(MAIN,),
    accounting=Accounting(accounts=("users",), default_account="users"),
    mpi=("pmix", "none"),
)
LOGIN = LoginFacts(
    host="login",
    address="10.0.0.1",
    slurm=SLURM,
    converter="/usr/bin/apptainer",
    proxies={},
    spaces=(
        Space(variable="$HPK_HOME", path="/h", filesystem="nfs4", free_bytes=50 * GIB),
        Space(variable="$HPK_CACHE", path="/c", filesystem="nfs4", free_bytes=50 * GIB),
    ),
    limits=ProcessLimits(
        nofile=65536, nproc=-1, cpu_s=-1, address_space_bytes=-1, memory_bytes=-1, tasks=-1
    ),
)
REPORT = NodeReport(
    host="n1",
    node="n1",
    address="10.0.0.2",
    port=4711,
    to_login="",
    python="3.11.2",
    hpk_python="Python 3.11.2",
    kernel="6.1.0-18-amd64",
    has_cgroup2=True,
    fuse=Fuse(mode=0o666, error=""),
    namespaces_step="",
    namespaces_error="",
    namespace_limits=(),
    programs=(
        Program(name="apptainer", path="/usr/bin/apptainer", version="apptainer version 1.4.3"),
        Program(name="podman", path="/usr/bin/podman", version="podman version 4.3.1"),
        Program(name="crun", path="/usr/bin/crun", version="crun version 1.8"),
        Program(name="unsquashfs", path="/usr/bin/unsquashfs", version=""),
    ),
    mpi="MPI plugin types are...\n\tpmix\n\tnone\nspecific pmix plugin versions available: pmix_v4",
    nofile=65536,
    nproc=-1,
    scratch="/tmp",
    scratch_free_bytes=50 * GIB,
    mounts="20 1 0:1 / / rw - ext4 /dev/a rw\n21 20 0:2 / /tmp rw - xfs /dev/b rw",
    directory="/h/doctor/x",
)


def answered(at_s: float, locked: str, linked: str = "", *, skew_s: float = 0) -> Round:
    pong = Pong(time_s=at_s + 0.05 + skew_s, locked=locked, linked=linked)
    return Round(asked_s=at_s, answered_s=at_s + 0.1, pong=pong)


EXCHANGE = Exchange(
    rounds=(answered(1000, "EAGAIN", "EEXIST"), answered(1001, "done"), answered(1002, "")),
    from_node=True,
    to_node="",
    locked_here="EAGAIN",
    linked_here="EEXIST",
)
JOB = JobFacts(end=JobEnd.REPORTED, job_id=7, waited_s=2, report=REPORT, exchange=EXCHANGE)
HEALTHY = Facts(login=LOGIN, job=JOB)
replace: Callable[..., Any] = dataclasses.replace


def slurm(**changes: Any) -> Facts:
    return Facts(login=replace(LOGIN, slurm=replace(SLURM, **changes)), job=JOB)


def login(**changes: Any) -> Facts:
    return Facts(login=replace(LOGIN, **changes), job=JOB)


def limits(**changes: Any) -> Facts:
    return login(limits=replace(LOGIN.limits, **changes))


def home(**changes: Any) -> Facts:
    return login(spaces=(replace(LOGIN.spaces[0], **changes), LOGIN.spaces[1]))


def node(**changes: Any) -> Facts:
    return Facts(login=LOGIN, job=replace(JOB, report=replace(REPORT, **changes)))


def exchange(**changes: Any) -> Facts:
    return Facts(login=LOGIN, job=replace(JOB, exchange=replace(EXCHANGE, **changes)))


def job(end: JobEnd, problem: str = "") -> Facts:
    return Facts(login=LOGIN, job=JobFacts(end=end, problem=problem, job_id=7))


def finding(facts: Facts, check: str) -> Finding:
    (found,) = [one for one in evaluate(facts) if one.check == check]
    return found
