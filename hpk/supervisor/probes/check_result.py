"""What came of asking a container something. Source: kubernetes pkg/probe."""

from __future__ import annotations

from enum import Enum

from hpk.model.frozen import dataclass

MAX_OUTPUT_BYTES = 10 * 1024


class Outcome(Enum):
    """The results of upstream's probes."""

    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"
    ERROR = "unknown"
    """It could not be asked: that says nothing of the container."""


@dataclass(frozen=True)
class CheckResult:
    """An outcome and upstream's words for it.

    :param answered: of httpGet: there was an answer, whatever its status.
    :param refused_tls: of httpGet: what listens there speaks plain HTTP.
    """

    outcome: Outcome
    text: str = ""
    answered: bool = False
    refused_tls: bool = False
