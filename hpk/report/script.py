"""What was really submitted for a Pod, from its files alone: no control plane, no Slurm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpk.model.errors import PermanentError
from hpk.report.cluster import find_journal, last_attempt
from hpk.statefs import HpkPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedScript:
    """The batch script of a Pod's current attempt.

    :param job_id: None where Slurm gave none (yet).
    :param submitted_at_s: Unix seconds.
    :param refused: whether Slurm refused it.
    """

    pod: str
    job_id: int | None
    submitted_at_s: float
    refused: bool
    path: str
    script: str


def read_script(paths: HpkPaths, namespace: str, name: str) -> SubmittedScript:
    """The script.

    :raises PermanentError: nothing was submitted for such a Pod.
    """
    journal = find_journal(paths, namespace, name)
    attempt = last_attempt(journal)
    path = Path(paths.attempt(attempt.pod.uid, attempt.nonce).script)
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise PermanentError(
            f"{path}: {error.strerror}", remedy="the Pod's files are removed when it is deleted"
        ) from error
    return SubmittedScript(
        pod=str(attempt.pod),
        job_id=attempt.job_id,
        submitted_at_s=attempt.intent_at_s,
        refused=attempt.refused,
        path=str(path),
        script=text,
    )
