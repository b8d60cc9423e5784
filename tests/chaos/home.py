"""The home directory that misbehaves, mounted in every host of the lab over the user's own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import User


class Home:
    """The control of a home that is served by tests.chaos.slow_home."""

    def __init__(
        self, machine: Machine, user: User, server: subprocess.Popen[str], at: Path
    ) -> None:
        self._machine = machine
        self._user = user
        self._server = server
        self._mountpoint = at

    def attach(self, host: str) -> None:
        """Show it in a host; again for each one that booted anew."""
        pid = self._machine.init_pid(host)
        argv = [sys.executable, "-m", "tests.chaos.attach"]
        subprocess.run([*argv, str(self._mountpoint), str(pid), self._user.home], check=True)

    def tell(self, command: str) -> None:
        """Give it a command of tests.chaos.slow_home."""
        assert self._server.stdin is not None
        self._server.stdin.write(f"{command}\n")
        self._server.stdin.flush()


@contextlib.contextmanager
def misbehaving_home(machine: Machine, user: User) -> Iterator[Home]:
    """Serve the user's home for as long as the block runs, in all hosts of the lab."""
    source = machine.lab.home / user.name
    with tempfile.TemporaryDirectory(prefix=f"{machine.lab.name}-") as directory:
        mountpoint = Path(directory)
        argv = [sys.executable, "-m", "tests.chaos.slow_home", str(source), directory]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            assert server.stdin is not None
            if server.stdout.readline().strip() != "mounted":
                raise RuntimeError("the home cannot be served: is /dev/fuse there?")
            home = Home(machine, user, server, mountpoint)
            try:
                for host in machine.lab.hosts:
                    home.attach(host.name)
                yield home
            finally:
                home.tell("fine")
                _detach(machine, user)
                server.stdin.close()


def _detach(machine: Machine, user: User) -> None:
    for host in machine.lab.hosts:
        pid = machine.init_pid(host.name)
        if pid is not None:
            argv = ["nsenter", f"--target={pid}", "--mount", "--pid"]
            subprocess.run([*argv, "umount", "-l", user.home], check=False)
