"""The lab's real Slurm, for every test that needs one."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from bootstrap.lab.hosts import Machine
from tests.waiting import eventually as eventually


@dataclass(frozen=True, slots=True, kw_only=True)
class LabUnderTest:
    """A lab that is up.

    :param machine: for what only root outside the lab can do (bootstrap.lab.control).
    """

    machine: Machine

    def run(
        self,
        host: str,
        user: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout_s: float = 120,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on a host of the lab, with a fresh login environment in the user's home.

        :param check: an exit code other than 0 fails the test, showing what the program said.
        """
        whole = self.machine.argv(host, argv, user=self.machine.lab.user(user))
        done = subprocess.run(
            whole,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            pytest.fail(f"{list(argv)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return subprocess.CompletedProcess(
            list(argv), done.returncode, stdout=done.stdout, stderr=done.stderr
        )


@pytest.fixture(scope="session")
def lab(machine: Machine) -> LabUnderTest:
    """The lab of this process's tests."""
    return LabUnderTest(machine=machine)
