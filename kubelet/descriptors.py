"""File descriptors: each connected pod takes one, and a login node gives 1,024 unless asked."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_FEW_LEFT = 0.1
_MOST = 65536
"""Enough for several times ten thousand pods. Jobs get the limit of whoever submits them, and there
are programs that do something for each descriptor they could have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """How many this process has open, and how many it may have."""

    used: int
    limit: int

    @property
    def problem(self) -> str:
        """What is wrong with it, "" for nothing."""
        if self.limit - self.used > self.limit * _FEW_LEFT:
            return ""
        return (
            f"{self.used} of {self.limit} file descriptors are in use: ask the administrators to"
            " raise the hard limit of this host (ulimit -Hn)"
        )


def raise_limit() -> None:
    """Take as many as the hard limit allows and as could ever be of use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit of file descriptors stays at %s: %s", soft, error)
        return
    log.info("limit of file descriptors raised from=%s to=%s", soft, wanted)


def descriptors() -> Descriptors:
    """As of now."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Descriptors(used=len(list(Path("/proc/self/fd").iterdir())), limit=limit)
