"""The journal of a Pod's attempts: what the kubelet meant to do, written before it did it.

One line for each step, in order: ``intent`` (a nonce was chosen, a submission may be under way),
``submitted`` (where Slurm has put it), ``revoked`` (its claim was taken back, it can never run),
``refused`` (sbatch said no), ``delete`` (the Pod's deletion was observed), ``ended`` (nothing of
the attempt is left in Slurm).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hpk.durable import append_line, write_atomically
from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.model.ids import JobName, Nonce, PodRef, PodUid, SlurmJobId, is_valid_uid
from hpk.model.job import JobObservation
from hpk.model.placement import Placement
from hpk.statefs import HpkPaths


class Step(StrEnum):
    """The kinds of journal entries."""

    INTENT = "intent"
    SUBMITTED = "submitted"
    REVOKED = "revoked"
    REFUSED = "refused"
    DELETE = "delete"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt, as the journal tells it. ``intent_at_s`` is in Unix seconds, ``again`` how
    many of the Pod's attempts had broken down before it."""

    pod: PodRef
    nonce: Nonce
    intent_at_s: float
    again: int = 0
    placement: Placement | None = None
    revoked: bool = False
    refused: bool = False
    ended: bool = False

    @property
    def job_name(self) -> str:
        """The name its Slurm job carries."""
        return str(JobName(self.pod.namespace, self.pod.name, self.nonce))

    @property
    def job_id(self) -> SlurmJobId | None:
        """The Slurm job it runs in; None while Slurm has not taken it."""
        return self.placement.job_id if self.placement is not None else None

    def owns(self, job: JobObservation) -> bool:
        """Whether the job that has this attempt's id is this attempt's.

        A controller that lost its newest state in a crash gives ids out again. Names say little:
        users and plugins of a site change them; the path of what was submitted holds the nonce and
        stays. Where Slurm tells of none, only the name of another attempt speaks against it.
        """
        if self.nonce in job.command or self.nonce in job.name:
            return True
        return not job.command and JobName.parse(job.name) is None

    @property
    def is_open(self) -> bool:
        """Whether a job of this attempt may be in Slurm."""
        return not (self.revoked or self.refused or self.ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodJournal:
    """All attempts of one Pod, oldest first, and whether its deletion was observed."""

    pod: PodRef
    attempts: tuple[Attempt, ...]
    deleted: bool

    @property
    def broke_down(self) -> int:
        """How many attempts had a job that broke down before it had begun, those that were dropped
        from the journal among them."""
        if not self.attempts:
            return 0
        last = self.attempts[-1]
        return last.again + (last.revoked and last.placement is not None)

    @property
    def current(self) -> Attempt | None:
        """The attempt that speaks for the Pod: the newest that was not withdrawn."""
        for attempt in reversed(self.attempts):
            if not (attempt.revoked or attempt.refused):
                return attempt
        return None


class JournalChangedError(OSError):
    """Somebody else wrote the journal meanwhile; look at it again."""


_locks: weakref.WeakValueDictionary[PodUid, threading.Lock] = weakref.WeakValueDictionary()
_locks_lock = threading.Lock()


def _lock_of(uid: PodUid) -> threading.Lock:
    """Of one Pod's journal, among this process's threads: no other process writes it, and one that
    hangs must not hinder other Pods."""
    with _locks_lock:
        return _locks.setdefault(uid, threading.Lock())


def record_step(
    paths: HpkPaths,
    pod: PodRef,
    step: Step,
    *,
    nonce: Nonce | None = None,
    placement: Placement | None = None,
) -> None:
    """Append a step.

    Durable when this returns, but for what Slurm said: that is asked of Slurm again where it is
    not here.
    """
    line = _line(pod, step, nonce=nonce, placement=placement)
    sync = step not in (Step.SUBMITTED, Step.REFUSED)
    with _lock_of(pod.uid):
        append_line(paths.journal(pod.uid), line, sync=sync)


def begin_attempt(paths: HpkPaths, old: PodJournal | None, pod: PodRef, nonce: Nonce) -> Attempt:
    """Journal the intent; durable when this returns.

    Attempts that were withdrawn before are dropped, so that a Pod that waits for long has a journal
    of one attempt.

    :param old: the Pod's journal so far, none of whose attempts may have a job.
    :raises JournalChangedError: it says something else by now; nothing was written.
    """
    again = old.broke_down if old is not None else 0
    attempt = Attempt(pod=pod, nonce=nonce, intent_at_s=time.time(), again=again)
    with _lock_of(pod.uid):
        if read_pod(paths, pod.uid) != old:
            raise JournalChangedError(f"the journal of {pod} has changed meanwhile")
        line = _line(pod, Step.INTENT, nonce=nonce, again=again, at_s=attempt.intent_at_s)
        if old is None or not old.attempts:
            append_line(paths.journal(pod.uid), line, sync=True)
            return attempt
        lines = [_line(pod, Step.DELETE), line] if old.deleted else [line]
        write_atomically(paths.journal(pod.uid), "".join(f"{line}\n" for line in lines))
        return attempt


def _line(
    pod: PodRef,
    step: Step,
    *,
    nonce: Nonce | None = None,
    placement: Placement | None = None,
    again: int = 0,
    at_s: float | None = None,
) -> str:
    entry: dict[str, object] = {
        "step": step.value,
        "at_s": time.time() if at_s is None else at_s,
        "namespace": pod.namespace,
        "name": pod.name,
    }
    if nonce is not None:
        entry["nonce"] = nonce
    if again:
        entry["again"] = again
    if placement is not None:
        entry["placement"] = codec.encode(placement)
    return json.dumps(entry, separators=(",", ":"))


def read_pod(paths: HpkPaths, uid: PodUid) -> PodJournal | None:
    """The journal of one Pod; None where there is none (or nothing whole in it)."""
    attempts: dict[Nonce, Attempt] = {}
    pod: PodRef | None = None
    deleted = False
    for entry in _entries(paths.journal(uid)):
        step, namespace, name = entry.get("step"), entry.get("namespace"), entry.get("name")
        if not isinstance(namespace, str) or not isinstance(name, str):
            continue
        pod = PodRef(namespace, name, uid)
        deleted = deleted or step == Step.DELETE
        nonce = entry.get("nonce")
        if isinstance(nonce, str):
            _apply(attempts, pod, Nonce(nonce), entry)
    if pod is None:
        return None
    return PodJournal(pod=pod, attempts=tuple(attempts.values()), deleted=deleted)


def _entries(path: Path) -> Iterator[dict[str, object]]:
    """The whole lines; one that a crash cut short counts as not written."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _apply(
    attempts: dict[Nonce, Attempt], pod: PodRef, nonce: Nonce, entry: dict[str, object]
) -> None:
    old = attempts.get(nonce)
    step = entry.get("step")
    if old is None:
        at_s = entry.get("at_s")
        if step != Step.INTENT or not isinstance(at_s, int | float):
            return
        again = entry.get("again")
        again = again if isinstance(again, int) and again > 0 else 0
        attempts[nonce] = Attempt(pod=pod, nonce=nonce, intent_at_s=float(at_s), again=again)
        return
    attempts[nonce] = Attempt(
        pod=old.pod,
        nonce=nonce,
        intent_at_s=old.intent_at_s,
        again=old.again,
        placement=_placement(entry) or old.placement,
        revoked=old.revoked or step == Step.REVOKED,
        refused=old.refused or step == Step.REFUSED,
        ended=old.ended or step == Step.ENDED,
    )


def _placement(entry: dict[str, object]) -> Placement | None:
    job_id = entry.get("job_id")
    if isinstance(job_id, int):
        return Placement(SlurmJobId(job_id))  # as it was written before there were placements
    try:
        found: Placement = codec.decode(Placement, entry["placement"])
    except (KeyError, ParseError):
        return None
    return found


def known_pods(paths: HpkPaths) -> tuple[PodUid, ...]:
    """UIDs of every Pod that has a directory, in no order; other directories are none of ours."""
    try:
        return tuple(
            PodUid(entry.name)
            for entry in paths.pods.iterdir()
            if is_valid_uid(entry.name) and entry.is_dir()
        )
    except FileNotFoundError:
        return ()
