"""What of this node is shown inside a container, and the files made for it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Sequence

from hpk.durable import read_file, write_new
from hpk.model.errors import PermanentError
from hpk.model.plan import ContainerPlan, PodPlan
from hpk.runtimes.base import PAUSE_PATH
from hpk.supervisor.inside import environment
from hpk.supervisor.inside.hosts import hosts_file
from hpk.supervisor.inside.localdir import LocalDirs
from hpk.supervisor.process.pause import pause_elf
from hpk.supervisor.process.places import Mount
from hpk.supervisor.process.switch_user import PATH as SWITCH_USER_PATH
from hpk.supervisor.process.switch_user import switch_user_elf

_MESSAGE_PATH = "/.hpk/termination-log"


def write_node_files(work_dir: str, plan: PodPlan, pod_ip: str) -> None:
    """The pause program and /etc/hosts, as every container of the job on this node has them.

    :param pod_ip: see hosts_file.
    :raises PermanentError: this machine's architecture has no pause program.
    """
    machine = os.uname().machine
    try:
        program = pause_elf(machine)
    except KeyError as error:
        raise PermanentError(f"HPK has no pause program for {machine}") from error
    write_new(os.path.join(work_dir, "pause"), program, mode=0o755)
    try:
        hosts = read_file("/etc/hosts").decode(errors="surrogateescape")
    except OSError:
        hosts = "127.0.0.1\tlocalhost\n"
    text = hosts_file(hosts, plan, pod_ip).encode(errors="surrogateescape")
    write_new(os.path.join(work_dir, "hosts"), text, mode=0o644)


def container_mounts(
    plan: ContainerPlan,
    dirs: LocalDirs,
    directory: str,
    volumes: Sequence[Mount],
    *,
    identity: bool = False,
) -> tuple[Mount, ...]:
    """All mounts of a container; the files and directories behind our own are made.

    :param directory: the container's own, on node-local disk.
    :param volumes: the Pod's; one in the place of one of ours replaces it.
    :param identity: the container runs as the user of the job (MPI).
    """
    write_new(message_file(directory), b"", mode=0o666)
    found = [
        Mount(os.path.join(dirs.work, "pause"), PAUSE_PATH, True),
        Mount(os.path.join(dirs.work, "hosts"), "/etc/hosts", False),
    ]
    if os.path.exists("/etc/resolv.conf"):
        found.append(Mount("/etc/resolv.conf", "/etc/resolv.conf", True))
    if identity and not plan.read_only_root:
        found += scratch_mounts(directory)
    if not identity:
        write_user_files(directory, plan)
        passwd, group = user_files(directory)
        found += (Mount(passwd, "/etc/passwd", False), Mount(group, "/etc/group", False))
        if plan.uid == 0:
            found += _switch_user_mounts(directory, plan)
    found.append(_message_mount(plan, message_file(directory)))
    return in_order((*found, *volumes))


def in_order(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """Mounts from the root downwards; of two with one target the later."""
    by_target = {posixpath.normpath(mount.target): mount for mount in mounts}
    return tuple(sorted(by_target.values(), key=lambda m: _parts(m.target)))


def _parts(target: str) -> int:
    return len([part for part in posixpath.normpath(target).split("/") if part])


def user_files(directory: str) -> tuple[str, str]:
    """Where the container's own passwd and group files are."""
    return os.path.join(directory, "passwd"), os.path.join(directory, "group")


def write_user_files(directory: str, plan: ContainerPlan) -> None:
    """Write passwd and group files that know the container's user."""
    passwd, group = user_files(directory)
    text = environment.passwd_with(plan.image.passwd, plan.uid, plan.gid)
    write_new(passwd, text.encode(), mode=0o644)
    write_new(group, environment.group_with(plan.image.group, plan.gid).encode(), mode=0o644)


def message_file(directory: str) -> str:
    """Where the termination message of the container lands on this node."""
    return os.path.join(directory, "termination-log")


def scratch_mounts(directory: str) -> tuple[Mount, ...]:
    """The container's /tmp and /var/tmp on node-local disk, made under ``directory``.

    For an MPI run, whose container has no root: an overlay refuses to copy up the image's own,
    which belong to a root that its user namespace does not know, and nobody could write there.
    """
    mounts = []
    for name, target in (("tmp", "/tmp"), ("var-tmp", "/var/tmp")):
        path = os.path.join(directory, name)
        os.mkdir(path)
        os.chmod(path, 0o1777)
        mounts.append(Mount(path, target, False))
    return tuple(mounts)


def _switch_user_mounts(directory: str, plan: ContainerPlan) -> tuple[Mount, ...]:
    program = switch_user_elf(os.uname().machine, plan.image.passwd)
    if program is None:
        return ()
    path = os.path.join(directory, "switch-user")
    write_new(path, program, mode=0o755)
    return (Mount(path, SWITCH_USER_PATH, True),)


def _message_mount(plan: ContainerPlan, source: str) -> Mount:
    """The file for the container's termination message. Under /dev, which a runtime makes anew and
    lets nobody mount into, message_links leads to it."""
    in_dev = plan.termination_message_path.startswith("/dev/")
    target = _MESSAGE_PATH if in_dev else plan.termination_message_path
    return Mount(source, target, False)


def message_links(plan: ContainerPlan) -> tuple[tuple[str, str], ...]:
    """Links, (where, to what), by which a message path under /dev leads to the mounted file."""
    if plan.termination_message_path.startswith("/dev/"):
        return ((plan.termination_message_path, _MESSAGE_PATH),)
    return ()
