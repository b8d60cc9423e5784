"""The only place outside the supervisor that spawns processes.

Programs are argv lists with an explicit environment and a time limit; nothing goes through a shell.
Each is logged at DEBUG as a line that can be pasted into one. Environments are never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpk.model.errors import PermanentError, TransientError

log = logging.getLogger(__name__)

_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded here, for nothing may be loaded after a fork
_PR_SET_PDEATHSIG = 1  # prctl(2)
_KEPT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SLURM_CONF", "TMPDIR", "TZ", "USER")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    def check(self) -> Completed:
        """This, if the program ended with 0.

        :raises TransientError: it did not; the message carries the end of its standard error.
        """
        if self.exit_code == 0:
            return self
        tail = self.stderr.strip()[-2000:] or self.stdout.strip()[-2000:]
        raise TransientError(f"{self.argv[0]} ended with {self.exit_code}: {tail}")


def base_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The few variables every child gets. None of Slurm's: those of a surrounding job must not
    steer ours, nor may SBATCH_* defaults of the user's shell change what a Pod says."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    return environment | dict(extra or {})


async def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    stdout_path: Path | None = None,
    stderr_path: Path | None = None,
    output_fds: tuple[int, int] | None = None,
    outlives_us: bool = False,
) -> Completed:
    """Run a program to its end.

    :param environment: its whole environment; `base_environment()` when None.
    :param stdout_path: a file for its standard output, to outlive us; stderr_path alike.
    :param output_fds: both, opened by the caller (and perhaps locked).
    :param outlives_us: do not kill it when we are cancelled or it takes too long: what it does
        must be done whole, and its files and descriptors tell how it went.
    :raises PermanentError: there is no such program, or we may not run it.
    :raises TransientError: it took longer than timeout_s (and was killed with its process group).
    """
    log.debug("run %s", shlex.join(argv))
    with contextlib.ExitStack() as stack:
        out, err = output_fds or (
            stack.enter_context(path.open("wb")) if path else asyncio.subprocess.PIPE
            for path in (stdout_path, stderr_path)
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=dict(environment) if environment is not None else base_environment(),
                cwd=cwd,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise PermanentError(
                f"{argv[0]}: no such program", remedy="install it or put it on PATH"
            ) from error
        except PermissionError as error:
            raise PermanentError(
                f"{argv[0]}: may not be run", remedy="look at the file's mode and its directory's"
            ) from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError as error:
        if not outlives_us:
            await _kill_group(process)
        raise TransientError(f"{argv[0]} took longer than {timeout_s:g} s") from error
    except asyncio.CancelledError:
        if not outlives_us:
            await asyncio.shield(_kill_group(process))
        raise
    return Completed(
        argv=tuple(argv),
        exit_code=process.returncode if process.returncode is not None else -1,
        stdout=(stdout or b"").decode(errors="replace"),
        stderr=(stderr or b"").decode(errors="replace"),
    )


async def start(
    argv: Sequence[str], *, environment: Mapping[str, str], output: Path
) -> asyncio.subprocess.Process:
    """Start a program that runs until it is stopped, and dies when this process does.

    Call it from the main thread: the kernel's parent-death signal follows the thread that forked.

    :param environment: its whole environment.
    :param output: gets its standard output and error, at the end of what is there; where it cannot
        be opened nothing does.
    :raises PermanentError: there is no such program.
    :raises OSError: the host refuses it, for want of processes or memory.
    """
    log.debug("start %s", shlex.join(argv))
    parent = os.getpid()
    fd = _open_output(output)
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
            preexec_fn=lambda: _die_with(parent),
        )
    except (FileNotFoundError, PermissionError) as error:
        raise PermanentError(
            f"{argv[0]}: cannot be started: {error.strerror}",
            remedy="install it or put it on PATH",
        ) from error
    finally:
        os.close(fd)


def _open_output(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        # A full or read-only home must not keep from running what its user works with.
        log.warning("%s cannot be opened, what goes there is lost: %s", path, error)
        return os.open(os.devnull, os.O_WRONLY)


def _die_with(parent: int) -> None:
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        os._exit(127)


def detach(argv: Sequence[str], *, environment: Mapping[str, str], output: Path) -> int:
    """Start a program in a session of its own, with no terminal, that outlives us and a logout.

    :param output: gets its standard output and error, at the end of what is there.
    :returns: its pid; it is our child while we live, and `has_ended` tells of it.
    """
    log.debug("detach %s", shlex.join(argv))
    return os.posix_spawn(
        argv[0],
        list(argv),
        dict(environment),
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE),
        file_actions=(
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ),
    )


def has_ended(pid: int) -> bool:
    """Whether a child started by `detach` has ended; reaps it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def run_in_terminal(argv: Sequence[str]) -> int:
    """Give the terminal to a program until it ends; its exit code.

    :raises PermanentError: there is no such program, or we may not run it.
    """
    log.debug("run %s", shlex.join(argv))
    environment = base_environment({"TERM": os.environ.get("TERM", "dumb")})
    try:
        process = await asyncio.create_subprocess_exec(*argv, env=environment)
    except OSError as error:
        raise PermanentError(f"{argv[0]}: {error.strerror}") from error
    return await process.wait()
