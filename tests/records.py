"""What a supervisor reports, for tests that need a record and care about little of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from hpk.model.ids import Nonce, PodUid, SlurmJobId
from hpk.model.record import RECORD_VERSION, PodPhase, SupervisorRecord

_RUNNING = SupervisorRecord(
    version=RECORD_VERSION,
    uid=PodUid("uid-1"),
    nonce=Nonce("0123456789abcdef"),
    job_id=SlurmJobId(1),
    seq=1,
    phase=PodPhase.RUNNING,
    host="n1",
    host_ip="10.0.0.1",
    started_at_s=1.0,
    containers=(),
)


def a_record(**changes: Any) -> SupervisorRecord:
    """The record of a pod that runs on n1, with changes."""
    return dataclasses.replace(_RUNNING, **changes)
