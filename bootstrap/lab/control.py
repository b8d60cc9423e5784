"""Brings a lab up, down, and says how it is: the order of things, and what to do about a wreck.

`up` makes what is missing and touches nothing that works; a lab whose login host or switch is gone
is made anew, a node or a daemon alone is replaced. `down` needs nothing but the lab's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bootstrap.binaries import Reporter
from bootstrap.lab import apptainer, cgroups, daemons, etc, network, software
from bootstrap.lab.hosts import Machine, require_root
from bootstrap.lab.layout import DEFAULT_NAME, DEFAULT_NODES, LOGIN, SOFTWARE, SWITCH, Host, Lab
from bootstrap.lab.rootfs import Sources, machine_root_links
from hpk.durable import write_atomically
from hpk.flock import try_lock
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

_LOCK_POLL_S = 0.1
_RECORD = "lab.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """How a host is.

    :param state: Slurm's word for a compute node; ``up`` or ``down`` for the login host.
    """

    name: str
    address: str
    state: str
    processes: int

    @property
    def is_up(self) -> bool:
        """Whether the host can be used."""
        return self.state == "up" if self.name == LOGIN else daemons.is_usable(self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabStatus:
    """How a lab is; ``hosts`` is empty where there is none."""

    name: str
    up: bool
    hosts: tuple[HostStatus, ...]
    daemons: dict[str, bool]


def find(name: str = DEFAULT_NAME) -> Machine:
    """The lab of this name as it was brought up, or as it would be with the default size.

    :raises PermanentError: this is no machine for labs.
    """
    require_root()
    nodes = DEFAULT_NODES
    # The record may be cut short or gone: it only spares the user repeating --nodes.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        nodes = int(json.loads((Lab(name=name).state / _RECORD).read_text())["nodes"])
    return Machine(lab=Lab(name=name, nodes=nodes), hierarchies=cgroups.detect())


async def up(name: str, nodes: int | None, reporter: Reporter) -> bool:
    """Bring the lab up, or what of it is missing.

    :param nodes: None takes what the lab was made with, four where there is none.
    :returns: whether anything had to be done.
    :raises PermanentError: the lab is up with another number of nodes.
    """
    machine = find(name)
    if nodes is not None and nodes != machine.lab.nodes:
        if await is_up(machine):
            raise PermanentError(
                f"the lab is up with {machine.lab.nodes} nodes", remedy="hpk lab down"
            )
        machine = Machine(lab=Lab(name=name, nodes=nodes), hierarchies=machine.hierarchies)
    paths = HpkPaths.from_environment()
    tree = await apptainer.ensure(paths.cache, reporter)
    async with _lock(machine.lab):
        if await is_up(machine):
            return False
        sources = _sources(paths, tree)
        if not (machine.is_ready(SWITCH) and machine.is_ready(LOGIN) and _has_state(machine.lab)):
            await _clear(machine)
            await _make_state(machine)
        async with asyncio.TaskGroup() as group:
            group.create_task(_install(machine.lab, reporter))
            group.create_task(_start(machine, sources, reporter))
    return True


async def down(name: str) -> bool:
    """End the lab and remove every trace of it, whatever state it is in.

    :returns: whether there was anything.
    """
    machine = find(name)
    if not machine.lab.state.exists() and not cgroups.exists(machine.hierarchies, machine.lab):
        return False
    async with _lock(machine.lab):
        await _clear(machine)
        machine.lab.state.rmdir()
    return True


async def is_up(machine: Machine) -> bool:
    """Whether every part of the lab works."""
    if not machine.is_ready(SWITCH) or not _has_state(machine.lab):
        return False
    if not software.is_installed(machine.lab):
        return False
    if not all(machine.is_ready(host.name) for host in machine.lab.hosts):
        return False
    status_now = await status(machine)
    return all(status_now.daemons.values()) and all(host.is_up for host in status_now.hosts)


async def status(machine: Machine) -> LabStatus:
    """How the lab is now."""
    if machine.init_pid(LOGIN) is None:
        hosts: tuple[HostStatus, ...] = ()
        return LabStatus(name=machine.lab.name, up=False, hosts=hosts, daemons={})
    states = await daemons.node_states(machine)
    here = {
        name: daemons.running(machine, LOGIN, name)
        for name in ("munged", "mariadbd", "slurmdbd", "slurmctld", "docker-registry")
    }
    for host in machine.lab.compute:
        for name in ("munged", "slurmd"):
            here[f"{host.name}/{name}"] = daemons.running(machine, host.name, name)
    listed = []
    for host in machine.lab.hosts:
        alive = "up" if machine.is_ready(host.name) else "down"
        listed.append(
            HostStatus(
                name=host.name,
                address=host.address,
                state=alive if host.is_login else states.get(host.name, alive),
                processes=len(machine.processes(host.name)),
            )
        )
    return LabStatus(name=machine.lab.name, up=True, hosts=tuple(listed), daemons=here)


async def kill_node(machine: Machine, host: str) -> None:
    """Let a compute node die: all its processes, slurmd included, at once."""
    await machine.kill(host)


async def start_node(machine: Machine, host: str) -> None:
    """Bring a dead compute node back, as after a reboot, and wait until Slurm uses it again."""
    paths = HpkPaths.from_environment()
    sources = _sources(paths, apptainer.cached(paths.cache))
    await _start_host(machine, machine.lab.host(host), sources)
    await _start_node_daemons(machine, machine.lab.host(host))
    await daemons.wait_for_nodes(machine, [machine.lab.host(host)])


async def restart_controller(machine: Machine) -> None:
    """Kill slurmctld as a crash would, and start it again."""
    await daemons.stop_controller(machine)
    await daemons.start_controller(machine)


async def _start(machine: Machine, sources: Sources, reporter: Reporter) -> None:
    lab = machine.lab
    reporter.step("hosts", "making login and compute nodes")
    if not machine.is_ready(SWITCH):
        await network.start_switch(machine)
    async with asyncio.TaskGroup() as group:
        for host in lab.hosts:
            group.create_task(_start_host(machine, host, sources))
    reporter.done("hosts", f"login and {lab.nodes} compute nodes")
    reporter.step("slurm", "starting munge, MariaDB, slurmdbd")
    await daemons.start_munge(machine, LOGIN)
    await daemons.start_registry(machine)
    await daemons.start_database(machine)
    await daemons.add_accounts(machine)
    reporter.step("slurm", "starting slurmctld and slurmd")
    await daemons.start_controller(machine)
    async with asyncio.TaskGroup() as group:
        for host in lab.compute:
            group.create_task(_start_node_daemons(machine, host))
    await daemons.wait_for_nodes(machine, lab.compute)
    reporter.done("slurm", f"{lab.nodes} nodes usable")


async def _start_host(machine: Machine, host: Host, sources: Sources) -> None:
    if machine.is_ready(host.name):
        return
    await machine.kill(host.name)
    await machine.start(host.name, sources)
    await network.connect(machine, host)
    machine.mark_ready(host.name)


async def _start_node_daemons(machine: Machine, host: Host) -> None:
    await daemons.start_munge(machine, host.name)
    await daemons.start_slurmd(machine, host)


def _sources(paths: HpkPaths, tree: Path) -> Sources:
    registry = paths.cache / "lab-registry"
    for directory in (paths.binaries, registry):
        directory.mkdir(parents=True, exist_ok=True)
    # Users of the lab read these, and may: they hold what anybody can download.
    paths.binaries.chmod(0o755)
    ids = etc.system_ids()
    os.chown(registry, *ids["docker-registry"])
    return Sources(
        root_links=machine_root_links(),
        apptainer=tree,
        binaries=paths.binaries,
        registry=registry,
        ids=ids,
    )


def _has_state(lab: Lab) -> bool:
    return (lab.state / _RECORD).exists()


async def _make_state(machine: Machine) -> None:
    await etc.make_state(machine.lab, machine.hierarchies)
    software.make_directories(machine.lab)
    # Last: a lab without its record was not made to the end.
    record = json.dumps({"nodes": machine.lab.nodes}) + "\n"
    write_atomically(machine.lab.state / _RECORD, record)


async def _install(lab: Lab, reporter: Reporter) -> None:
    if software.is_installed(lab):
        return
    reporter.step("software", f"installing this checkout at {SOFTWARE}/hpk")
    await software.install(lab)
    reporter.done("software", f"{SOFTWARE}/hpk")


async def _clear(machine: Machine) -> None:
    """Kill everything and remove everything but the state directory itself (the lock)."""
    await cgroups.kill(machine.hierarchies, machine.lab)
    await cgroups.remove(machine.hierarchies, machine.lab)
    for path in machine.lab.state.iterdir():
        if path.is_dir() and not path.is_symlink():
            await asyncio.to_thread(shutil.rmtree, path)
        else:
            path.unlink()


def _is_open(path: Path, fd: int) -> bool:
    """Whether the descriptor is of what is at the path now, not of what was removed there."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


@contextlib.asynccontextmanager
async def _lock(lab: Lab) -> AsyncIterator[None]:
    """One `up` or `down` at a time; the lock is on the state directory, which `down` removes."""
    while True:
        with contextlib.suppress(FileExistsError):
            lab.state.mkdir(mode=0o755)
        try:
            fd = os.open(lab.state, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            is_ours = try_lock(fd)
            if is_ours and _is_open(lab.state, fd):
                yield
                return
            if not is_ours:
                await asyncio.sleep(_LOCK_POLL_S)
        finally:
            os.close(fd)
