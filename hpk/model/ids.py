"""Identifiers, so that a job id is never taken for a pid and a UID never for a name."""

from __future__ import annotations

import re
from typing import NewType, Optional

from hpk.model.frozen import dataclass

PodUid = NewType("PodUid", str)
SlurmJobId = NewType("SlurmJobId", int)
Nonce = NewType("Nonce", str)
"""Names one attempt to submit a Pod: 16 lower-case hex digits, fresh for each."""

_JOB_NAME = re.compile(r"(?P<namespace>[a-z0-9-]+)/(?P<pod>[a-z0-9.-]+)@(?P<nonce>[0-9a-f]{16})")
_UID = re.compile(r"[0-9A-Za-z-]{1,128}")


@dataclass(frozen=True)
class PodRef:
    """A Pod: its namespace, name and UID."""

    namespace: str
    name: str
    uid: PodUid

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class JobName:
    """The name of a pod's Slurm job, ``namespace/pod@nonce``.

    The name carries the nonce because it is the one free text that Slurm always keeps in
    accounting.
    """

    namespace: str
    pod: str
    nonce: Nonce

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}@{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> Optional[JobName]:
        """The parts of a job's name, or None where the job is not one of a pod's."""
        found = _JOB_NAME.fullmatch(text)
        if found is None:
            return None
        return cls(found["namespace"], found["pod"], Nonce(found["nonce"]))


def is_valid_uid(text: str) -> bool:
    """Whether the text can be a Pod's UID and so a directory's name."""
    return _UID.fullmatch(text) is not None
