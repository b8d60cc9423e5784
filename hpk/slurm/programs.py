"""Runs Slurm's programs: with an environment of few variables, in /, and never through a shell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpk import subproc
from hpk.model.ids import SlurmJobId
from hpk.slurm.refusals import refusal

_TIMEOUT_S = 60
_IDS_AT_ONCE = 1000


class Programs:
    """Slurm's programs, for questions.

    :param environment: added to the few variables each program gets.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = subproc.base_environment(
            {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"} | dict(environment)
        )

    async def run(self, argv: Sequence[str]) -> subproc.Completed:
        """Run a program to its end, whatever that is."""
        return await subproc.run(
            argv, environment=self._environment, timeout_s=_TIMEOUT_S, cwd=Path("/")
        )

    async def query(self, argv: Sequence[str]) -> str:
        """The output of a program.

        :raises TransientError: it failed; PermanentError alike.
        """
        done = await self.run(argv)
        if done.exit_code != 0:
            raise refusal(argv[0], done.stderr, exit_code=done.exit_code)
        return done.stdout


def in_chunks(ids: Iterable[SlurmJobId]) -> Iterable[tuple[str, ...]]:
    """The ids as words, as many at once as a command line holds with ease (execve(2))."""
    words = [str(job_id) for job_id in sorted(ids)]
    for first in range(0, len(words), _IDS_AT_ONCE):
        yield tuple(words[first : first + _IDS_AT_ONCE])
