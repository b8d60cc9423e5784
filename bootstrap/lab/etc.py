"""Makes the lab's state directory: /etc of its hosts, homes, keys. Nothing here is running yet.

/etc is put together from a list of what programs of Debian need and from files of our own; users
exist in these files only. Written once per lab: a lab that is up keeps its keys.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import jinja2

from bootstrap.lab import pki
from bootstrap.lab.cgroups import Hierarchies
from bootstrap.lab.layout import (
    CPUS_PER_NODE,
    GPUS_PER_NODE,
    MEMORY_MIB_PER_NODE,
    REGISTRY,
    USERS,
    Lab,
)
from hpk import subproc
from hpk.model.errors import PermanentError

SLURMD_TIMEOUT_S = 20

_TEMPLATES = Path(__file__).parent / "templates"
_FROM_MACHINE = (
    "alternatives",
    "bash.bashrc",
    "bindresvport.blacklist",
    "containers",
    "debian_version",
    "fuse.conf",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "libibverbs.d",
    "localtime",
    "login.defs",
    "mime.types",
    "openmpi",
    "os-release",
    "pam.conf",
    "pam.d",
    "profile",
    "protocols",
    "python3",
    "python3.11",
    "security",
    "services",
    "shells",
    "skel",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
_SYSTEM_USERS = ("munge", "slurm", "mysql", "docker-registry")
_OLDEST_HUMAN_UID = 1000


def system_ids() -> dict[str, tuple[int, int]]:
    """(uid, gid) of the users that the daemons' packages made on this machine.

    :raises PermanentError: one is missing.
    """
    known = {}
    for line in Path("/etc/passwd").read_text().splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[0] in _SYSTEM_USERS:
            known[fields[0]] = (int(fields[2]), int(fields[3]))
    for name in _SYSTEM_USERS:
        if name not in known:
            raise PermanentError(
                f"this machine has no user {name!r}", remedy="run scripts/install-os-packages"
            )
    return known


async def make_state(lab: Lab, hierarchies: Hierarchies) -> None:
    """Make everything that lies in the lab's state directory, except its software."""
    ids = system_ids()
    lab.private.mkdir(mode=0o700)
    for directory in (lab.etc, lab.home, lab.software, lab.mount_point, lab.state / "hosts"):
        directory.mkdir(mode=0o755)
    for host in lab.hosts:
        directory = lab.host_dir(host.name)
        for path, mode in (
            (directory, 0o755),
            (directory / "tmp", 0o1777),
            (directory / "log", 0o755),
        ):
            path.mkdir()
            path.chmod(mode)
    _copy_from_machine(lab.etc)
    _write_accounts(lab.etc)
    _write_network(lab)
    _write_slurm(lab, hierarchies, ids)
    await _write_trust(lab, ids)
    _make_homes(lab)


def _copy_from_machine(etc: Path) -> None:
    for name in _FROM_MACHINE:
        source, target = Path("/etc") / name, etc / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True)
        elif source.exists() or source.is_symlink():
            shutil.copy2(source, target, follow_symlinks=False)


def passwd_lines(machine: str) -> list[str]:
    """The lab's passwd: Debian's system users and the lab's own, from the machine's text."""
    kept = ["root:x:0:0:root:/root:/bin/bash"]
    for line in machine.splitlines():
        fields = line.split(":")
        if len(fields) != 7 or fields[0] == "root" or not fields[2].isdigit():
            continue
        if int(fields[2]) < _OLDEST_HUMAN_UID or fields[0] in (*_SYSTEM_USERS, "nobody"):
            kept.append(line)
    kept += [f"{u.name}:x:{u.uid}:{u.gid}:{u.name.title()}:{u.home}:/bin/bash" for u in USERS]
    return kept


def group_lines(machine: str) -> list[str]:
    """The lab's group file; no member of a system group is taken over from the machine."""
    kept = []
    for line in machine.splitlines():
        fields = line.split(":")
        if len(fields) != 4 or not fields[2].isdigit():
            continue
        if int(fields[2]) < _OLDEST_HUMAN_UID or fields[0] in (*_SYSTEM_USERS, "nogroup"):
            kept.append(":".join((*fields[:3], "")))
    return kept + [f"{user.name}:x:{user.gid}:" for user in USERS]


def _write_accounts(etc: Path) -> None:
    passwd = passwd_lines(Path("/etc/passwd").read_text())
    _write(etc / "passwd", passwd)
    _write(etc / "group", group_lines(Path("/etc/group").read_text()))
    _write(etc / "shadow", [f"{line.split(':')[0]}:*:19000:0:99999:7:::" for line in passwd], 0o600)
    # No subordinate ids: what HPK offers must not need what an administrator has to hand out.
    _write(etc / "subuid", [])
    _write(etc / "subgid", [])


def _write_network(lab: Lab) -> None:
    registry = REGISTRY.split(":")[0]
    hosts = ["127.0.0.1 localhost", f"{lab.login.address} {lab.login.name} {registry}"]
    hosts += [f"{host.address} {host.name}" for host in lab.compute]
    _write(lab.etc / "hosts", hosts)
    sources = ("passwd", "group", "shadow", "hosts", "networks", "protocols", "services")
    _write(lab.etc / "nsswitch.conf", [f"{name}: files" for name in sources])
    # Nobody answers DNS in the lab, and nothing in it may wait for somebody who does.
    _write(lab.etc / "resolv.conf", ["options timeout:1 attempts:1"])
    (lab.etc / "hostname").symlink_to("/run/hostname")
    (lab.etc / "mtab").symlink_to("/proc/self/mounts")
    (lab.etc / "profile.d").mkdir()
    shutil.copyfile(_TEMPLATES / "profile.sh", lab.etc / "profile.d/software.sh")
    _write(lab.etc / "machine-id", [secrets.token_hex(16)])
    _write(lab.etc / "fstab", [])
    _write(lab.etc / "environment", [])


def render(name: str, lab: Lab, *, unified: bool) -> str:
    """The text of one of the lab's configuration files from its template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, and every value is our own
    )
    return environment.get_template(f"{name}.j2").render(
        login=lab.login,
        compute=lab.compute,
        cpus=CPUS_PER_NODE,
        memory_mib=MEMORY_MIB_PER_NODE,
        gpus=GPUS_PER_NODE,
        slurmd_timeout_s=SLURMD_TIMEOUT_S,
        unified=unified,
    )


def _write_slurm(lab: Lab, hierarchies: Hierarchies, ids: dict[str, tuple[int, int]]) -> None:
    (lab.etc / "slurm").mkdir(mode=0o755)
    for name in ("slurm.conf", "cgroup.conf", "gres.conf", "slurmdbd.conf"):
        path = lab.etc / "slurm" / name
        path.write_text(render(name, lab, unified=hierarchies.unified))
    os.chown(path, *ids["slurm"])
    path.chmod(0o600)
    (lab.etc / "munge").mkdir(mode=0o700)
    key = lab.etc / "munge/munge.key"
    key.touch(mode=0o400)
    key.write_bytes(secrets.token_bytes(128))
    for path in (lab.etc / "munge", key):
        os.chown(path, *ids["munge"])


async def _write_trust(lab: Lab, ids: dict[str, tuple[int, int]]) -> None:
    registry = REGISTRY.split(":")[0]
    identity = pki.make_server_identity((registry, lab.login.name), (lab.login.address,))
    certs = lab.etc / "ssl/certs"
    certs.mkdir(parents=True, exist_ok=True)
    bundle = certs / "ca-certificates.crt"
    bundle.write_bytes(identity.ca_certificate)
    # OpenSSL (and so Python) looks an authority up by the hash of its name.
    argv = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(bundle)]
    done = (await subproc.run(argv)).check()
    (certs / f"{done.stdout.strip()}.0").symlink_to("ca-certificates.crt")
    # The form container tools want it in when they are pointed to it: a directory of *.crt.
    (lab.etc / "ssl/registry").mkdir()
    (lab.etc / "ssl/registry/ca.crt").symlink_to("../certs/ca-certificates.crt")
    private = lab.private / "registry"
    private.mkdir(mode=0o700)
    files = {
        "registry.key": identity.key,
        "registry.crt": identity.certificate,
        "registry.yml": render("registry.yml", lab, unified=False).encode(),
    }
    for name, data in files.items():
        (private / name).touch(mode=0o600)
        (private / name).write_bytes(data)
    for path in (private, *private.iterdir()):
        os.chown(path, *ids["docker-registry"])


def _make_homes(lab: Lab) -> None:
    for user in USERS:
        home = lab.home / user.name
        home.mkdir(mode=0o700)
        for name in (".bashrc", ".profile", ".bash_logout"):
            if (Path("/etc/skel") / name).exists():
                shutil.copyfile(Path("/etc/skel") / name, home / name)
        for path in (home, *home.iterdir()):
            os.chown(path, user.uid, user.gid)


def _write(path: Path, lines: list[str], mode: int = 0o644) -> None:
    path.touch(mode=mode)
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(mode)
