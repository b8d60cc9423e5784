"""What a host's file system is made of: a pure list of steps that bootstrap/lab/holder.py takes.

A whitelist: a host sees Debian's /usr, the lab's /etc, /home and software directory, and what it
makes for itself; nothing else of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bootstrap.lab.cgroups import Hierarchies
from bootstrap.lab.layout import GPUS_PER_NODE, SOFTWARE, Host, Lab

Step = tuple[str | int, ...]
"""Name of the step and its arguments, see bootstrap/lab/holder.py."""

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
_CHAR_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
    ("net/tun", 10, 200),
)
_DEV_LINKS = (
    ("/proc/self/fd", "fd"),
    ("fd/0", "stdin"),
    ("fd/1", "stdout"),
    ("fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What of the machine the hosts are given.

    :param root_links: links in the machine's / into /usr (``bin`` → ``usr/bin``).
    :param apptainer: the tree that belongs at /opt/software/apptainer.
    :param binaries: upstream programs, for /opt/software/libexec/hpk/binaries.
    :param registry: the registry's storage, for the login host.
    :param ids: system user → (uid, gid).
    """

    root_links: dict[str, str]
    apptainer: Path
    binaries: Path
    registry: Path
    ids: dict[str, tuple[int, int]]


def machine_root_links() -> dict[str, str]:
    """The links of a merged /usr on this machine."""
    names = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
    links = {name: Path(f"/{name}") for name in names}
    return {name: str(link.readlink()) for name, link in links.items() if link.is_symlink()}


def plan_root(lab: Lab, host: Host, sources: Sources, hierarchies: Hierarchies) -> list[Step]:
    """All steps that make the host's file system, in order."""
    return [
        *_system(sources),
        *_devices(host),
        *_cgroup_mounts(hierarchies),
        *_etc_and_shared(lab, sources),
        *_own(lab, host, sources),
    ]


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> Step:
    return ("mount", source, target, kind, flags, data)


def _bind(source: Path | str, target: str, *, readonly: bool = False) -> list[Step]:
    steps = [_mount(str(source), target, "", MS_BIND)]
    if readonly:
        # A bind mount takes its flags only when it is mounted again.
        steps.append(_mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY))
    return steps


def _dir(path: str, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Step:
    return ("dir", path, mode, *owner)


def _link(target: str, path: str) -> Step:
    return ("link", target, path)


def _device(name: str, major: int, minor: int) -> Step:
    return ("device", f"/dev/{name}", 0o666, major, minor)


def _system(sources: Sources) -> list[Step]:
    names = ("usr", "etc", "proc", "sys", "dev", "run", "tmp", "var", "home", "opt", "cg")
    return [
        *(_dir(f"/{name}") for name in (*names, "mnt", "media", "srv")),
        _dir("/root", 0o700),
        *(_link(target, f"/{name}") for name, target in sources.root_links.items()),
        *_bind("/usr", "/usr", readonly=True),
        # What the machine's owner put beside Debian's files is not part of the cluster.
        _mount("local", "/usr/local", "tmpfs", MS_RDONLY, "mode=755"),
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        _mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"),
        _dir("/run/lock", 0o1777),
    ]


def _devices(host: Host) -> list[Step]:
    gpus = () if host.is_login else tuple(f"gpu{index}" for index in range(GPUS_PER_NODE))
    return [
        _mount("dev", "/dev", "tmpfs", MS_NOSUID, "mode=755"),
        *(_dir(f"/dev/{name}") for name in ("net", "pts", "shm", "mqueue")),
        *(_device(*device) for device in _CHAR_DEVICES),
        # A GPU that is none: enough for Slurm to count, hand out and hide.
        *(_device(name, 1, 3) for name in gpus),
        *(_link(target, f"/dev/{name}") for target, name in _DEV_LINKS),
        _mount("devpts", "/dev/pts", "devpts", MS_NOSUID, "newinstance,ptmxmode=666,mode=620"),
        _mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"),  # noqa: S108
        _mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC),
    ]


def _cgroup_mounts(hierarchies: Hierarchies) -> list[Step]:
    """crun insists on cgroup2 alone at /sys/fs/cgroup; Slurm's old plugins get theirs at /cg."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    steps = [_mount("cgroup2", "/sys/fs/cgroup", "cgroup2", flags)]
    for controller in hierarchies.v1:
        target = f"/cg/{controller}"
        steps += [_dir(target), _mount("cgroup", target, "cgroup", flags, controller)]
    return steps


def _etc_and_shared(lab: Lab, sources: Sources) -> list[Step]:
    return [
        *_bind(lab.etc, "/etc"),
        *_bind(lab.home, "/home"),
        _dir(SOFTWARE),
        *_bind(lab.software, SOFTWARE, readonly=True),
        *_bind(sources.apptainer, f"{SOFTWARE}/apptainer", readonly=True),
        *_bind(sources.binaries, f"{SOFTWARE}/libexec/hpk/binaries", readonly=True),
    ]


def _own(lab: Lab, host: Host, sources: Sources) -> list[Step]:
    munge, slurm = sources.ids["munge"], sources.ids["slurm"]
    steps: list[Step] = [
        ("file", "/run/hostname", f"{host.name}\n", 0o644),
        *_bind(lab.host_dir(host.name) / "tmp", "/tmp"),  # noqa: S108
        *(_dir(f"/var/{name}") for name in ("cache", "lib", "log", "spool", "tmp")),
        *_bind(lab.host_dir(host.name) / "log", "/var/log"),
        *_bind(lab.host_dir(host.name) / "tmp", "/var/tmp"),  # noqa: S108
        _link("/run", "/var/run"),
        _link("/run/lock", "/var/lock"),
        _dir("/run/munge", 0o755, munge),
        _dir("/var/lib/munge", 0o711, munge),
        _dir("/var/log/munge", 0o700, munge),
        _dir("/var/spool/slurmd"),
        _dir("/run/slurm", 0o755, slurm),
    ]
    if host.is_login:
        mysql, registry = sources.ids["mysql"], sources.ids["docker-registry"]
        steps += [
            _dir("/run/mysqld", 0o755, mysql),
            _dir("/var/lib/mysql", 0o700, mysql),
            _dir("/var/spool/slurmctld", 0o700, slurm),
            _dir("/var/log/slurm", 0o750, slurm),
            _dir("/run/docker-registry", 0o700, registry),
            _dir("/var/lib/docker-registry", 0o700, registry),
            *_bind(sources.registry, "/var/lib/docker-registry"),
            *_bind(lab.private / "registry", "/run/docker-registry"),
        ]
    return steps
