"""Whether the user's directories answer at all, before a command waits for them for ever.

A file system that hangs (NFS without its server) lets nobody go who has asked it something, not
even to die: the question is put by a process that nobody waits for.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from hpk.model.errors import TransientError

PATIENCE_S = 15.0
_SAY_AFTER_S = 3.0


def require_answer(directory: Path, say: Callable[[str], None]) -> None:
    """Return once the directory can be looked at, or is known not to be there.

    :param say: told, once, that there is a wait.
    :raises TransientError: it did not answer for PATIENCE_S.
    """
    answer, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _look(directory)
    os.close(end)
    try:
        if not _has_ended(answer, _SAY_AFTER_S):
            say(f"{directory} does not answer, wait for it …")
            if not _has_ended(answer, PATIENCE_S - _SAY_AFTER_S):
                raise TransientError(
                    f"{directory}: the file system did not answer within {PATIENCE_S:.0f} s",
                    remedy=f"the same again once `ls {directory}` answers; the pods' jobs go on",
                )
    finally:
        os.close(answer)
    os.waitpid(pid, 0)


def _look(directory: Path) -> NoReturn:
    """In the child, which keeps nothing open that somebody may read to its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(0, 2)
        with contextlib.suppress(OSError), os.scandir(directory) as entries:
            next(entries, None)
    finally:
        os._exit(0)


def _has_ended(answer: int, timeout_s: float) -> bool:
    return bool(select.select([answer], [], [], timeout_s)[0])
