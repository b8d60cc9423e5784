"""Starts, finds, enters and kills hosts. A host is known by its cgroup alone: no file says its pid.

Process 1 of a host is the one process in the host's cgroup that is number 1 in a PID namespace
just below this machine's own; containers of jobs lie deeper.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap.lab import cgroups
from bootstrap.lab.cgroups import Hierarchies
from bootstrap.lab.layout import ROOT, SOFTWARE, SWITCH, Lab, User
from bootstrap.lab.rootfs import Sources, plan_root
from hpk import subproc
from hpk.model.errors import PermanentError, TransientError
from hpk.subproc import Completed

_HERE = Path(__file__).parent
_PYTHON = "/usr/bin/python3"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USER_PATH = f"{SOFTWARE}/bin:{SOFTWARE}/apptainer/bin:/usr/local/bin:/usr/bin:/bin"
_READY = "run/hpk-lab-ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process of a host.

    :param pid: as this machine numbers it.
    :param name: the kernel's name for it, at most 15 characters.
    """

    pid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The lab on this machine: what every operation on hosts needs."""

    lab: Lab
    hierarchies: Hierarchies

    def init_pid(self, host: str) -> int | None:
        """Process 1 of the host, as this machine numbers it; None where the host is down."""
        for pid in cgroups.processes(self.hierarchies, self.lab, host):
            with contextlib.suppress(OSError):
                if _namespaced_pids(Path(f"/proc/{pid}/status").read_text())[1:] == ["1"]:
                    return pid
        return None

    def is_ready(self, host: str) -> bool:
        """Whether the host was made to its end, network included."""
        pid = self.init_pid(host)
        if pid is None:
            return False
        if host == SWITCH:
            return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(_argv0(host).encode())
        return Path(f"/proc/{pid}/root/{_READY}").exists()

    def mark_ready(self, host: str) -> None:
        """Note that the host is made to its end; forgotten when the host ends."""
        Path(f"/proc/{self._pid(host)}/root/{_READY}").touch()

    def processes(self, host: str) -> tuple[Process, ...]:
        """All processes of the host."""
        found = []
        for pid in cgroups.processes(self.hierarchies, self.lab, host):
            with contextlib.suppress(OSError):
                found.append(Process(pid=pid, name=Path(f"/proc/{pid}/comm").read_text().strip()))
        return tuple(found)

    async def start(self, host: str, sources: Sources | None) -> None:
        """Make the host's namespaces and its file system; without sources, a mere switch.

        :raises TransientError: it cannot be made; says at which mount.
        """
        cgroups.create(self.hierarchies, self.lab, host)
        plan = {
            "name": host,
            "argv0": _argv0(host),
            "root": str(self.lab.mount_point) if sources else "",
            "leaf": str(self.hierarchies.dirs(self.lab, host)[0]),
            "steps": plan_root(self.lab, self.lab.host(host), sources, self.hierarchies)
            if sources
            else [],
        }
        directories = self.hierarchies.namespace_dirs(self.lab, host)
        argv = enter_argv(directories, [_PYTHON, "-I", "-S", str(_HERE / "holder.py")])
        (await subproc.run(argv, stdin=json.dumps(plan).encode(), timeout_s=30)).check()
        cgroups.delegate(self.hierarchies, self.lab, host)

    async def kill(self, host: str) -> None:
        """Kill every process of the host; its namespaces, mounts and links go with them."""
        await cgroups.kill(self.hierarchies, self.lab, host)
        await cgroups.remove(self.hierarchies, self.lab, host)

    def network_argv(self, host: str, argv: Sequence[str]) -> list[str]:
        """Run a program of this machine in the host's network."""
        directories = self.hierarchies.dirs(self.lab, host)
        nsenter = ["nsenter", f"--target={self._pid(host)}", "--net", "--"]
        return enter_argv(directories, [*nsenter, *argv])

    def argv(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: User = ROOT,
        environment: Mapping[str, str] | None = None,
        cwd: str = "",
    ) -> list[str]:
        """Run a program of the host, as a user of the lab with a fresh environment.

        :param environment: besides HOME, USER, LOGNAME, SHELL, PATH and LANG.
        :param cwd: directory in the host, the user's home by default.
        """
        variables = {
            "HOME": user.home,
            "USER": user.name,
            "LOGNAME": user.name,
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "PATH": _SYSTEM_PATH if user.uid == 0 else _USER_PATH,
        } | dict(environment or {})
        inside = [
            *("nsenter", f"--target={self._pid(host)}"),
            *("--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--"),
            *("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups", "--"),
            *("env", "--ignore-environment", f"--chdir={cwd or user.home}"),
            *(f"{name}={value}" for name, value in variables.items()),
            *argv,
        ]
        return enter_argv(self.hierarchies.dirs(self.lab, host), inside)

    async def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: User = ROOT,
        timeout_s: float = 60,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run a program of the host to its end.

        :raises TransientError: it takes longer than timeout_s.
        """
        whole = self.argv(host, argv, user=user, environment=environment)
        done = await subproc.run(whole, timeout_s=timeout_s, stdin=stdin)
        return Completed(
            argv=tuple(argv), exit_code=done.exit_code, stdout=done.stdout, stderr=done.stderr
        )

    def _pid(self, host: str) -> int:
        pid = self.init_pid(host)
        if pid is None:
            raise TransientError(f"host {host} of the lab is down", remedy="hpk lab up")
        return pid


def _argv0(host: str) -> str:
    return f"hpk-lab:{host}"


def enter_argv(directories: Sequence[Path], argv: Sequence[str]) -> list[str]:
    """Run a program in these cgroups."""
    return ["bash", str(_HERE / "enter.sh"), *(str(each) for each in directories), "--", *argv]


def _namespaced_pids(status: str) -> list[str]:
    """The process's numbers from this PID namespace inwards."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return line.split()[1:]
    return []


def require_root() -> None:
    """:raises PermanentError: this process may not make a lab."""
    if os.geteuid() != 0:
        raise PermanentError("only root can make a lab", remedy="sudo hpk lab …")
