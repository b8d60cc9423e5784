"""What `hpk doctor` says of one thing. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

IN_A_JOB = (
    "run the control plane in a job:"
    " hpk up --print-batch-script > hpk-start.sh && sbatch hpk-start.sh"
)
"""What to do where a login node does not bear it."""


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Place(StrEnum):
    """Where a thing was looked at."""

    LOGIN = "login"
    NODE = "node"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check.

    :param check: its name, for programs.
    :param seen: what was found, or why nothing could be.
    :param costs: what does not work, or works worse.
    :param ask: what the user can do, or ask the site's administrators for.
    :param essential: whether HPK cannot do without; of FAILED ones alone.
    """

    check: str
    place: Place
    title: str
    status: Status
    seen: str
    costs: str = ""
    ask: str = ""
    essential: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Makes the findings of one check."""

    name: str
    place: Place
    title: str

    def ok(self, seen: str) -> Finding:
        """It is as it should be."""
        return self._finding(Status.OK, seen)

    def warning(self, seen: str, *, costs: str, ask: str) -> Finding:
        """HPK works, but something is missing."""
        return self._finding(Status.WARNING, seen, costs=costs, ask=ask)

    def failed(self, seen: str, *, costs: str, ask: str, essential: bool = False) -> Finding:
        """What this stands for does not work."""
        return self._finding(Status.FAILED, seen, costs=costs, ask=ask, essential=essential)

    def skipped(self, why: str, *, ask: str = "") -> Finding:
        """It could not be looked at."""
        return self._finding(Status.SKIPPED, why, ask=ask)

    def _finding(
        self,
        status: Status,
        seen: str,
        *,
        costs: str = "",
        ask: str = "",
        essential: bool = False,
    ) -> Finding:
        return Finding(
            check=self.name,
            place=self.place,
            title=self.title,
            status=status,
            seen=seen,
            costs=costs,
            ask=ask,
            essential=essential,
        )
