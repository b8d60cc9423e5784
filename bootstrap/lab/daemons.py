"""Starts what runs on the lab's hosts and waits until each answers; what runs is left alone.

The order is munge, MariaDB, slurmdbd, slurmctld, slurmd; the registry needs none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN, USERS, Host
from hpk import subproc
from hpk.model.errors import HpkError, TransientError
from hpk.subproc import Completed

_POLL_S = 0.05
_START_TIMEOUT_S = 60.0
_DATABASE = (
    "CREATE DATABASE IF NOT EXISTS slurm_acct; "
    "CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED VIA unix_socket; "
    "GRANT ALL ON slurm_acct.* TO slurm@localhost"
)


def running(machine: Machine, host: str, name: str) -> bool:
    """Whether a process of this name runs on the host."""
    return any(process.name == name[:15] for process in machine.processes(host))


async def wait_until(what: str, check: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the answer is yes.

    :raises TransientError: it never is.
    """
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not await check():  # noqa: ASYNC110 - programs outside set no Event
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise TransientError(f"{what} within {_START_TIMEOUT_S:g} s: not so") from error


async def _daemon(machine: Machine, host: str, argv: Sequence[str], *, user: str = "") -> None:
    """Start a daemon that detaches itself, unless it runs."""
    if running(machine, host, Path(argv[0]).name):
        return
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    (await machine.run(host, [*as_user, *argv])).check()


async def _background(machine: Machine, host: str, name: str, argv: Sequence[str]) -> None:
    """Start a program that stays in the foreground, unless it runs; its output goes to a log."""
    if running(machine, host, name):
        return
    log = machine.lab.host_dir(host) / "log" / f"{name}.log"
    whole = machine.argv(host, ["setsid", "--fork", *argv])
    (await subproc.run(whole, stdout_path=log, stderr_path=log.with_suffix(".err"))).check()


async def start_munge(machine: Machine, host: str) -> None:
    """Authentication, needed on every host."""
    await _daemon(machine, host, ["munged"], user="munge")


async def start_database(machine: Machine) -> None:
    """MariaDB, with the database of Slurm's accounting in it, and slurmdbd."""
    data = "--datadir=/var/lib/mysql"
    if not running(machine, LOGIN, "mariadbd"):
        if (await machine.run(LOGIN, ["test", "-d", "/var/lib/mysql/mysql"])).exit_code != 0:
            await _install_database(machine, data)
        await _background(
            machine,
            LOGIN,
            "mariadbd",
            [
                *("mariadbd", "--no-defaults", "--user=mysql", data, "--skip-networking"),
                *("--socket=/run/mysqld/mysqld.sock", "--innodb-buffer-pool-size=32M"),
                *("--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"),
            ],
        )

    async def answers() -> bool:
        return (await _sql(machine, "SELECT 1")).exit_code == 0

    await wait_until("MariaDB answers", answers)
    (await _sql(machine, _DATABASE)).check()
    await _daemon(machine, LOGIN, ["slurmdbd"], user="slurm")


async def _install_database(machine: Machine, data: str) -> None:
    argv = ["mariadb-install-db", "--no-defaults", "--user=mysql", data, "--skip-test-db"]
    done = await machine.run(LOGIN, [*argv, "--auth-root-authentication-method=socket"])
    done.check()


async def _sql(machine: Machine, statement: str) -> Completed:
    argv = ["mariadb", "--no-defaults", "--socket=/run/mysqld/mysqld.sock", "-e", statement]
    return await machine.run(LOGIN, argv)


async def add_accounts(machine: Machine) -> None:
    """The cluster, an account and the lab's users, in Slurm's accounting."""
    names = ",".join(user.name for user in USERS)
    charged = ",".join(user.name for user in USERS if user.has_default_account)
    # What is there already is no error. All in one sacctmgr: each takes a fifth of a second.
    script = (
        "add cluster lab\n"
        "add account users Cluster=lab Description=users Organization=lab\n"
        f"add user {names} Account=users\n"
        # Where jobs must name an account, adding a user gives none by default, even if told to.
        f"modify user {charged} set DefaultAccount=users\n"
        "show user format=user,defaultaccount\n"
    )
    wanted = {f"{user.name}|{'users' if user.has_default_account else ''}" for user in USERS}

    async def known() -> bool:
        done = await machine.run(LOGIN, ["sacctmgr", "-i", "-n", "-P"], stdin=script.encode())
        return wanted <= set(done.stdout.splitlines())

    await wait_until("Slurm's accounting knows the lab's users", known)


async def start_controller(machine: Machine) -> None:
    """slurmctld; returns when it answers."""
    await _daemon(machine, LOGIN, ["slurmctld"], user="slurm")

    async def answers() -> bool:
        done = await machine.run(LOGIN, ["scontrol", "ping"])
        return done.exit_code == 0 and "UP" in done.stdout

    await wait_until("slurmctld answers", answers)


async def stop_controller(machine: Machine) -> None:
    """Kill slurmctld, as a crash would."""
    pids = [process.pid for process in machine.processes(LOGIN) if process.name == "slurmctld"]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def gone() -> bool:
        return not running(machine, LOGIN, "slurmctld")

    await wait_until("slurmctld is gone", gone)


async def start_slurmd(machine: Machine, host: Host) -> None:
    """The compute node's daemon."""
    await _daemon(machine, host.name, ["slurmd"])


def is_usable(state: str) -> bool:
    """Whether Slurm would start jobs on a node in this state, now or when others have ended."""
    return state.rstrip("-+") in ("idle", "mixed", "allocated", "completing", "planned")


async def wait_for_nodes(machine: Machine, hosts: Sequence[Host]) -> None:
    """Until each of these nodes is usable; one that was set aside is taken back."""
    wanted = {host.name for host in hosts}

    async def usable() -> bool:
        states = await node_states(machine)
        for name in wanted:
            if states.get(name, "").startswith(("down", "drain")):
                resume = ["scontrol", "update", f"nodename={name}", "state=resume"]
                await machine.run(LOGIN, resume)
        return all(is_usable(states.get(name, "")) for name in wanted)

    await wait_until("all nodes are usable", usable)


async def node_states(machine: Machine) -> dict[str, str]:
    """Node → Slurm's word for its state; empty where the controller does not answer."""
    # Where no controller runs, sinfo goes on trying for a long while.
    if not running(machine, LOGIN, "slurmctld"):
        return {}
    argv = ["sinfo", "-h", "-N", "-o", "%N %T", "-p", "main"]
    try:
        done = await machine.run(LOGIN, argv, timeout_s=10)
    except HpkError:
        return {}
    pairs = (line.split() for line in done.stdout.splitlines() if done.exit_code == 0)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


async def start_registry(machine: Machine) -> None:
    """The image registry, on the login host, answering on its port."""
    config = "/run/docker-registry/registry.yml"
    drop = ["setpriv", "--reuid=docker-registry", "--regid=docker-registry", "--clear-groups"]
    argv = [*drop, "docker-registry", "serve", config]
    await _background(machine, LOGIN, "docker-registry", argv)
