"""A firewall between the lab's hosts, as sites have them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN


@pytest.fixture
def wall(machine: Machine) -> Iterator[Callable[[], None]]:
    """A firewall on the login node that lets Slurm through and nothing of the user's."""

    def nft(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            machine.network_argv(LOGIN, ["nft", *words]), capture_output=True, text=True
        )

    def build() -> None:
        if nft("add", "table", "ip", "wall").returncode != 0:
            pytest.skip("this machine has no nftables")
        hook = "{ type filter hook input priority 0 ; }"
        done = nft("add", "chain", "ip", "wall", "input", hook)
        assert done.returncode == 0, done.stderr
        # Answers to what the login node has begun come to other ports, but for its own channel.
        rule = ["iifname", "!=", "lo", "tcp", "dport", "20000-32000", "reject"]
        done = nft("add", "rule", "ip", "wall", "input", *rule)
        assert done.returncode == 0, done.stderr

    yield build
    nft("delete", "table", "ip", "wall")
