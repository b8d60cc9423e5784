"""What `hpk doctor` knows before it judges: plain data. No I/O, no opinion.

`NodeReport` and `Pong` are what the probe writes; they come from another host and are decoded
strictly (hpk.model.codec). Everything else was seen by the login node itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hpk.model.job import Partition

UNLIMITED = -1
"""A limit that is none, as RLIM_INFINITY reads in Python."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is left in a directory.

    :param filesystem: ``nfs4``, ``ext4`` …; "" where that is not known.
    :param problem: why it cannot be used, in the place of the numbers.
    """

    variable: str
    path: str
    filesystem: str = ""
    free_bytes: int = 0
    free_inodes: int = UNLIMITED
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """One line of quota(1); limits are 0 where there is none."""

    filesystem: str
    used_kib: int
    limit_kib: int
    files: int
    files_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What the login node lets a process have; UNLIMITED where it is not limited.

    :param cpu_s: seconds of CPU time after which the kernel kills a process.
    :param memory_bytes: the smallest limit of the cgroups around us; tasks likewise.
    """

    nofile: int
    nproc: int
    cpu_s: int
    address_space_bytes: int
    memory_bytes: int
    tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What Slurm's accounting says of this user.

    :param problem: why it does not answer; "" where it does.
    :param enabled: whether the site keeps any.
    :param accounts: those the user may charge; the default one is "" where he has none.
    """

    problem: str = ""
    enabled: bool = True
    accounts: tuple[str, ...] = ()
    default_account: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmFacts:
    """What Slurm's programs say on the login node.

    :param commands: absolute path by name; absent where there is none.
    :param controller: why slurmctld does not answer; "" where it does.
    :param config: ``scontrol show config``, key by key.
    :param mpi: the plugins of ``srun --mpi=list``.
    :param account: the one that HPK's configuration names; partition likewise.
    """

    commands: Mapping[str, str]
    version: str = ""
    controller: str = ""
    config: Mapping[str, str]
    partitions: tuple[Partition, ...] = ()
    partitions_problem: str = ""
    accounting: Accounting
    mpi: tuple[str, ...] = ()
    account: str = ""
    partition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginFacts:
    """What the login node says.

    :param address: the one that compute nodes shall dial; "" with the reason in address_problem.
    :param converter: the program that makes images; "" where there is none.
    :param proxies: the variables that are set, without user names and passwords.
    :param kills_at_logout: logind's KillUserProcesses; None where it cannot be asked.
    :param etcd_problem: why etcd cannot keep its data in $HPK_HOME.
    """

    host: str
    address: str
    address_problem: str = ""
    slurm: SlurmFacts
    converter: str = ""
    proxies: Mapping[str, str]
    no_proxy: str = ""
    spaces: tuple[Space, ...]
    quotas: tuple[Quota, ...] = ()
    limits: ProcessLimits
    kills_at_logout: bool | None = None
    lingers: bool = False
    etcd_problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuse:
    """/dev/fuse of the node; mode 0 where it is not there."""

    mode: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceLimit:
    """One sysctl; its text as the kernel gives it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of the node; version is its own words, "" where it was not asked."""

    name: str
    path: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """``hello.json`` of the probe; see hpk.report.doctor.probe.collect."""

    host: str
    node: str
    address: str
    port: int
    to_login: str
    python: str
    hpk_python: str
    kernel: str
    has_cgroup2: bool
    fuse: Fuse
    namespaces_step: str
    namespaces_error: str
    namespace_limits: tuple[NamespaceLimit, ...]
    programs: tuple[Program, ...]
    mpi: str
    nofile: int
    nproc: int
    scratch: str
    scratch_free_bytes: int
    mounts: str
    directory: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """``pong-N.json`` of the probe: ``done`` or an errno's name, "" where it did not try."""

    time_s: float
    locked: str
    linked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One question and its answer; times by the login node's clock."""

    asked_s: float
    answered_s: float
    pong: Pong


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What login node and compute node did together.

    :param rounds: fewer than three where the answers stopped coming.
    :param from_node: whether the node's call arrived here.
    :param to_node: why the node does not answer our call; "" where it does.
    :param locked_here: what flock said here while the node held the lock; linked_here what link
        said of the name that the node had taken. ``done`` or an errno's name, "" if not tried.
    """

    rounds: tuple[Round, ...]
    from_node: bool
    to_node: str
    locked_here: str = ""
    linked_here: str = ""


class JobEnd(StrEnum):
    """How far the job came."""

    NOT_ASKED = "not asked"
    REFUSED = "refused"
    NOT_STARTED = "not started"
    UNSEEN = "ran unseen"
    BROKEN = "broken"
    REPORTED = "reported"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What became of the job.

    :param problem: Slurm's words, its reason, or what the job printed.
    :param waited_s: from submission to its first sign.
    """

    end: JobEnd
    problem: str = ""
    job_id: int = 0
    waited_s: float = 0
    report: NodeReport | None = None
    exchange: Exchange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything `hpk doctor` judges."""

    login: LoginFacts
    job: JobFacts
