"""scancel, for all who want it at one time: one program for hundreds of jobs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection

from hpk.model.errors import HpkError, TransientError
from hpk.model.ids import SlurmJobId
from hpk.slurm.programs import Programs, in_chunks
from hpk.slurm.refusals import refusal, slurm_words

_OF_JOB = re.compile(r"\bjob(?:[ _]id)? (?P<id>[0-9]{1,10})\b[^:]*(?::\s*(?P<words>.*))?")
_ENDED = ("Invalid job id", "already completing or completed")


class Cancelling:
    """While one scancel runs, what others want cancelled gathers for the next."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._running = asyncio.Lock()
        self._wanted: dict[SlurmJobId, asyncio.Future[HpkError | None]] = {}

    async def cancel(self, ids: Collection[SlurmJobId]) -> dict[SlurmJobId, HpkError]:
        """See SlurmBackend."""
        loop = asyncio.get_running_loop()
        answers = {i: self._wanted.setdefault(i, loop.create_future()) for i in ids}
        async with self._running:
            batch, self._wanted = self._wanted, {}
            if batch:
                await self._answer(batch)
        done = {job_id: await answer for job_id, answer in answers.items()}
        return {job_id: error for job_id, error in done.items() if error is not None}

    async def _answer(self, batch: dict[SlurmJobId, asyncio.Future[HpkError | None]]) -> None:
        errors: dict[SlurmJobId, HpkError] = {}
        whole: HpkError | None = TransientError("scancel was cut off")
        try:
            for some in in_chunks(batch):
                done = await self._programs.run(["scancel", *some])
                ids = [SlurmJobId(int(word)) for word in some]
                errors |= parse_scancel(done.stderr, ids, exit_code=done.exit_code)
            whole = None
        except HpkError as error:
            whole = error
        finally:
            for job_id, answer in batch.items():
                answer.set_result(errors.get(job_id, whole))


def parse_scancel(
    stderr: str, ids: Collection[SlurmJobId], *, exit_code: int
) -> dict[SlurmJobId, HpkError]:
    """What scancel could not do, by job. Pure.

    A job that has already ended is no error. Words that name no job are about all of them.
    """
    if exit_code == 0:
        return {}
    named: dict[SlurmJobId, HpkError] = {}
    rest = []
    any_named = False
    for line in stderr.splitlines():
        found = _OF_JOB.search(line)
        job_id = SlurmJobId(int(found["id"])) if found else None
        if found is None or job_id is None or job_id not in ids:
            rest.append(line)
            continue
        any_named = True
        if not any(words in line for words in _ENDED):
            named[job_id] = refusal("scancel", found["words"] or line, exit_code=exit_code)
    if any_named or any(words in slurm_words("\n".join(rest)) for words in _ENDED):
        return named
    error = refusal("scancel", "\n".join(rest), exit_code=exit_code)
    return dict.fromkeys(ids, error)
