"""What a user reads when a command fails: one line, and what to do next. Never a traceback.

``HPK_DEBUG=1`` shows the traceback as well.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

import click

from hpk.model.errors import HpkError

DEBUG_VARIABLE = "HPK_DEBUG"
_MAX_SAID = 3
_MAX_CHARACTERS = 2000
_SPACE = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed command in words.

    :param remedy: the next thing to try, "" where there is none.
    """

    message: str
    remedy: str
    exit_code: int


def report(error: BaseException) -> int:
    """Tell the user on standard error.

    :returns: the exit code.
    """
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    failure = explain(error)
    click.echo(f"hpk: {failure.message}", err=True)
    if failure.remedy:
        click.echo(f"  try: {failure.remedy}", err=True)
    return failure.exit_code


def explain(error: BaseException) -> Failure:
    """The error in words; of a task group, all that its tasks have to say.

    What is no error of ours, nor of the operating system, is a fault of hpk and is called so.
    """
    every = list(leaves(error))
    if any(isinstance(each, KeyboardInterrupt | click.Abort) for each in every):
        return Failure(message="interrupted", remedy="", exit_code=130)
    # A task that was cancelled because another one failed has nothing to say.
    said = [each for each in every if not isinstance(each, asyncio.CancelledError)] or every
    messages = list(dict.fromkeys(_one_line(_message(each)) for each in said))
    more = f"; and {len(messages) - _MAX_SAID} more" if len(messages) > _MAX_SAID else ""
    remedies = [remedy for each in said if (remedy := _remedy(each))]
    return Failure(
        message="; ".join(messages[:_MAX_SAID]) + more,
        remedy=remedies[0] if remedies else "",
        exit_code=1,
    )


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The error itself, or all errors in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def _message(error: BaseException) -> str:
    if isinstance(error, HpkError):
        return error.message
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or str(error) or type(error).__name__}"
    if isinstance(error, ImportError):
        return f"hpk is not installed whole: {error}"
    return f"a fault of hpk itself: {type(error).__name__}: {error}"


def _one_line(text: str) -> str:
    """What other programs said may have many lines."""
    return " ".join(text.split())[:_MAX_CHARACTERS]


def _remedy(error: BaseException) -> str:
    if isinstance(error, HpkError):
        return error.remedy
    if isinstance(error, OSError):
        if error.errno in _SPACE:
            return "make room there (df, quota), or set HPK_HOME or HPK_CACHE to another place"
        if error.errno in _READ_ONLY:
            return "set HPK_HOME and HPK_CACHE to directories that you may write to"
        return "hpk doctor, which looks at directories, quotas and limits"
    if isinstance(error, ImportError):
        return "scripts/install-python in a checkout, or pip install it anew"
    return f"the same with {DEBUG_VARIABLE}=1, which shows where, and tell the authors"


def close_output() -> None:
    """Give up standard output, which fails: nothing more is to be said at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
