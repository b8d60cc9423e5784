"""Joining a running container and becoming the program the Pod names.

Everything here runs in a freshly forked, single-threaded child: joining a user namespace is refused
to a process with threads. argv and environment go to execve as they are.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping, Sequence

from hpk.model.plan import DEFAULT_PATH
from hpk.supervisor.base import linux
from hpk.supervisor.process.seccomp.emulation import fixed_dispositions

# User first: it gives the right to join the others. Each only where it differs from ours: joining
# one that the container shares with the host (IPC) is refused.
_NAMESPACES = (
    ("user", linux.CLONE_NEWUSER),
    ("ipc", linux.CLONE_NEWIPC),
    ("uts", linux.CLONE_NEWUTS),
    ("net", linux.CLONE_NEWNET),
    ("cgroup", linux.CLONE_NEWCGROUP),
    ("mnt", linux.CLONE_NEWNS),
)
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


def join_namespaces(pid: int) -> None:
    """Enter the namespaces of a process that are not ours already, but for that of its pids; its
    root becomes ours."""
    opened = []
    for name, kind in _NAMESPACES:
        path = f"/proc/{pid}/ns/{name}"
        try:
            theirs, ours = os.stat(path), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/ns/{name}"):
                raise
            continue
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            opened.append((os.open(path, os.O_RDONLY | os.O_CLOEXEC), kind))
    for fd, kind in opened:
        linux.setns(fd, kind)
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


def execute(argv: Sequence[str], env: Mapping[str, str]) -> None:
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
