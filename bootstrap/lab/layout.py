"""What a lab consists of: its hosts, users, addresses and paths. Pure data, no I/O.

Several labs may run beside each other on one machine; each has a name, and everything of it on
the machine (state directory and cgroups) carries that name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpk.model.errors import PermanentError

DEFAULT_NAME = "hpk-lab"
DEFAULT_NODES = 4
LOGIN = "login"
SWITCH = "switch"
REGISTRY = "registry.lab:5000"
CPUS_PER_NODE = 4
MEMORY_MIB_PER_NODE = 8000
GPUS_PER_NODE = 2
SOFTWARE = "/opt/software"

_NETWORK = "10.77.0"
_MOST_NODES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host of the lab.

    :param address: IPv4, on the lab's only network.
    """

    name: str
    address: str

    @property
    def is_login(self) -> bool:
        """Whether this is the login host, where Slurm's controller runs as well."""
        return self.name == LOGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the lab, known to nobody outside it.

    :param has_default_account: whether Slurm knows which account to charge when a job names none.
    """

    name: str
    uid: int
    gid: int
    home: str
    has_default_account: bool = True


ROOT = User(name="root", uid=0, gid=0, home="/root")
USERS = (
    User(name="alice", uid=20001, gid=20001, home="/home/alice"),
    User(name="bob", uid=20002, gid=20002, home="/home/bob"),
    User(name="carol", uid=20003, gid=20003, home="/home/carol", has_default_account=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """One lab on this machine.

    :param name: names its state directory and its cgroups.
    """

    name: str = DEFAULT_NAME
    nodes: int = DEFAULT_NODES

    def __post_init__(self) -> None:
        if not re.fullmatch(r"hpk-lab(-[a-z0-9]{1,16}){0,3}", self.name):
            raise PermanentError(
                f"{self.name!r} cannot be a lab's name",
                remedy="use hpk-lab, or hpk-lab and up to three words of at most 16 lower-case "
                "letters and digits, a - before each",
            )
        if not 1 <= self.nodes <= _MOST_NODES:
            raise PermanentError(
                f"a lab of {self.nodes} nodes", remedy=f"ask for 1 to {_MOST_NODES}"
            )

    @property
    def state(self) -> Path:
        """All files of the lab; gone when it is down."""
        return Path("/var/lib") / self.name

    @property
    def etc(self) -> Path:
        """/etc of every host."""
        return self.state / "etc"

    @property
    def home(self) -> Path:
        """/home of every host."""
        return self.state / "home"

    @property
    def software(self) -> Path:
        """/opt/software of every host."""
        return self.state / "software"

    @property
    def private(self) -> Path:
        """Keys; visible in no host except where one file of it is mounted."""
        return self.state / "private"

    @property
    def mount_point(self) -> Path:
        """Where each host puts its new root, in its own mount namespace."""
        return self.state / "root"

    def host_dir(self, name: str) -> Path:
        """What a host keeps on disk: its /tmp and its logs."""
        return self.state / "hosts" / name

    @property
    def login(self) -> Host:
        """The login host."""
        return Host(name=LOGIN, address=f"{_NETWORK}.1")

    @property
    def compute(self) -> tuple[Host, ...]:
        """The compute nodes."""
        return tuple(
            Host(name=f"n{index}", address=f"{_NETWORK}.{10 + index}")
            for index in range(1, self.nodes + 1)
        )

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, the login host first."""
        return (self.login, *self.compute)

    def host(self, name: str) -> Host:
        """The host of this name.

        :raises PermanentError: there is none.
        """
        for host in self.hosts:
            if host.name == name:
                return host
        names = ", ".join(host.name for host in self.hosts)
        raise PermanentError(f"the lab has no host {name!r}", remedy=f"choose one of {names}")

    @staticmethod
    def user(name: str) -> User:
        """The user of this name.

        :raises PermanentError: there is none.
        """
        for user in (*USERS, ROOT):
            if user.name == name:
                return user
        names = ", ".join(user.name for user in (*USERS, ROOT))
        raise PermanentError(f"the lab has no user {name!r}", remedy=f"choose one of {names}")
