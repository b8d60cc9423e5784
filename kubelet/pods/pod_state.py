"""All that the kubelet remembers of one pod, in memory, behind its journal.

The journal is read once, when the pod is first heard of, and written through. What follows from a
pod is decided on what is here; no sync, hello, log or bundle reads a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from hpk.journal import Attempt, PodJournal, Step, read_pod, record_step
from hpk.model.errors import ParseError
from hpk.model.ids import Nonce, PodRef
from hpk.model.plan import PodPlan
from hpk.statefs import HpkPaths
from kubelet.shared_files import SharedFiles
from kubelet.submission.submitter import Submitted, Submitter

log = logging.getLogger(__name__)

_RECORD_WITHIN_S = 5.0
"""How long what follows from a step waits for its being written down."""


class PodState:
    """One pod's state. Only its worker changes it; anybody may look."""

    def __init__(
        self, ref: PodRef, *, paths: HpkPaths, files: SharedFiles, submitter: Submitter
    ) -> None:
        self._ref = ref
        self._paths = paths
        self._files = files
        self._submitter = submitter
        self._settled = asyncio.Event()
        self._tokens: dict[Nonce, bytes] = {}
        self._plan: tuple[Nonce, PodPlan] | None = None
        self.journal: PodJournal | None = None

    async def wait_settled(self, timeout_s: float) -> bool:
        """Wait until what is here is what the journal says: it was read, and no submission is under
        way; False where that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts, oldest first."""
        return self.journal.attempts if self.journal is not None else ()

    @property
    def current(self) -> Attempt | None:
        """The attempt that speaks for the pod."""
        return self.journal.current if self.journal is not None else None

    def find(self, nonce: Nonce) -> Attempt | None:
        """An attempt by its nonce."""
        return next((attempt for attempt in self.attempts if attempt.nonce == nonce), None)

    def takes_token(self, nonce: Nonce, token: str) -> bool:
        """Whether this is the attempt's token."""
        wanted = self._tokens.get(nonce)
        return wanted is not None and hmac.compare_digest(wanted, _hash(token))

    async def load(self) -> None:
        """Read the journal, and the tokens of the attempts that may still speak.

        :raises OSError: it cannot be read now.
        """
        if self._settled.is_set():
            return
        journal, tokens = await self._files.do_in_turn(self._ref.uid, self._read)
        self.journal, self._tokens = journal, tokens
        self._settled.set()

    @contextlib.asynccontextmanager
    async def submission(self) -> AsyncIterator[Submitted]:
        """While a submission is under way, or looked for, the journal knows more; then it is read
        again, at the latest by the next `load`, unless what it gives was told all of it."""
        self._settled.clear()
        try:
            yield self._submitted
        finally:
            with contextlib.suppress(OSError):
                await self.load()

    async def plan(self, attempt: Attempt) -> PodPlan | None:
        """The plan it was submitted with; None where its file is damaged or gone.

        Read once, after a restart alone.

        :raises OSError: it cannot be read now.
        """
        if self._plan is None or self._plan[0] != attempt.nonce:
            try:
                spec = await self._files.do(self._submitter.load_spec, attempt)
            except ParseError as error:
                log.warning("plan of %s: %s", attempt.pod, error)
                return None
            self._plan = attempt.nonce, spec.plan
        return self._plan[1]

    def planned(self, attempt: Attempt, plan: PodPlan) -> None:
        """The attempt was submitted with this plan."""
        self._plan = attempt.nonce, plan

    async def record(self, step: Step, attempt: Attempt | None = None) -> bool:
        """Write a step down.

        :returns: False where that failed; what is here stays as it was.
        """
        nonce = attempt.nonce if attempt is not None else None
        try:
            await self._files.do_in_turn(
                self._ref.uid,
                partial(record_step, nonce=nonce),
                self._paths,
                self._ref,
                step,
                deadline_s=_RECORD_WITHIN_S,
            )
        except OSError as error:
            log.warning("%s not journalled pod=%s error=%s", step.value, self._ref, error)
            return False
        if self.journal is not None:
            self.journal = _with_step(self.journal, step, nonce)
        return True

    def _submitted(self, journal: PodJournal, token: str) -> None:
        self.journal = journal
        self._tokens = {journal.attempts[-1].nonce: _hash(token)}
        self._settled.set()

    def _read(self) -> tuple[PodJournal | None, dict[Nonce, bytes]]:
        journal = read_pod(self._paths, self._ref.uid)
        tokens = dict(self._tokens)
        for attempt in journal.attempts if journal is not None else ():
            if attempt.nonce in tokens or attempt.refused or attempt.ended:
                continue
            path = Path(self._paths.attempt(self._ref.uid, attempt.nonce).token)
            try:
                tokens[attempt.nonce] = _hash(path.read_text().strip())
            except FileNotFoundError:
                continue
        return journal, tokens


def _with_step(journal: PodJournal, step: Step, nonce: Nonce | None) -> PodJournal:
    if step is Step.DELETE:
        return dataclasses.replace(journal, deleted=True)
    if step is not Step.ENDED:
        raise ValueError(f"{step} is the submitter's to write")
    attempts = tuple(
        dataclasses.replace(attempt, ended=True) if attempt.nonce == nonce else attempt
        for attempt in journal.attempts
    )
    return dataclasses.replace(journal, attempts=attempts)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
