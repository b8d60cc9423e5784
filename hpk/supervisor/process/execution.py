"""Becoming a program: what a freshly forked child makes of itself, and its execve.

argv and environment go to execve as they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from hpk.model.plan import DEFAULT_PATH
from hpk.supervisor.base import linux
from hpk.supervisor.process.seccomp.emulation import fixed_dispositions

MOST_KILLABLE = 1000
TERMINATIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What Slurm and terminals send to whole trees of processes that are to end."""


class StartError(Exception):
    """The program cannot be started; the message says why, in the words container runtimes use."""


def reset_signals() -> None:
    """Give the program the signal dispositions and mask a fresh process has."""
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def shield_from_termination() -> None:
    """Ignore the signals that Slurm sends to every process of a job that is to end, for good.

    Of this process and all it starts: a runtime and its FUSE servers so stay up while the
    container's own process uses its grace period. A mask would not do, Apptainer's starter empties
    it; nor would ignoring alone, for programs of Go and of libfuse install handlers.
    """
    for number in TERMINATIONS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, TERMINATIONS)
    linux.forbid_new_privileges()
    with contextlib.suppress(KeyError, OSError):  # a machine or kernel without has the mask
        linux.filter_system_calls(fixed_dispositions(os.uname().machine, TERMINATIONS))


def set_oom_score_adj(value: int) -> None:
    """Where the kernel looks first when memory runs out."""
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


def make_links(links: Iterable[tuple[str, str]]) -> None:
    """Make symbolic links, each (where, to what); one that cannot be made is left out."""
    for where, target in links:
        with contextlib.suppress(OSError, ValueError):
            os.makedirs(os.path.dirname(where), exist_ok=True)
            os.symlink(target, where)


def change_directory(path: str) -> None:
    """Enter a working directory, made where the image has none, as container runtimes do."""
    try:
        os.makedirs(path or "/", mode=0o755, exist_ok=True)
        os.chdir(path or "/")
    except (OSError, ValueError) as error:
        raise StartError(f'chdir to cwd ("{path}"): {_reason(error)}') from error


def execute(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Become the program: looked up in the PATH of ``env``, with exactly this argv and env.

    :raises StartError: always, for it returns only where it failed.
    """
    if not argv or not argv[0]:
        raise StartError("no command specified")
    name = argv[0]
    try:
        arguments = [_raw(item) for item in argv]
        environment = {_raw(key): _raw(value) for key, value in env.items()}
        candidates = [_raw(name)]
        if "/" not in name:
            search = env.get("PATH", DEFAULT_PATH).split(":")
            candidates = [os.path.join(_raw(item or "."), _raw(name)) for item in search]
    except ValueError as error:
        raise StartError(f'exec: "{name}": {_reason(error)}') from error
    refused = ""
    for candidate in candidates:
        try:
            os.execve(candidate, arguments, environment)
        except FileNotFoundError as error:
            if os.path.lexists(candidate):
                refused = _reason(error)
        except NotADirectoryError:
            continue
        except (OSError, ValueError) as error:
            refused = refused or _reason(error)
    if refused:
        raise StartError(f'exec: "{name}": {refused}')
    if "/" in name:
        raise StartError(f'exec: "{name}": stat {name}: no such file or directory')
    raise StartError(f'exec: "{name}": executable file not found in $PATH')


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
