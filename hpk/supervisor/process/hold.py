"""Holding a container whose runtime starts it and leaves (hpk.runtimes.base.Holder).

Runs in a child forked for one container, the parent of all that keeps it: the image's FUSE server
and the runtime's monitor. Its mounts are in a mount namespace of its own, so they end with the last
process in there. Towards whoever forked it it behaves like a runtime that stays: the pause
program's pid on standard output, and an end soon after that of standard input.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import time
from collections.abc import Mapping, Sequence

from hpk.durable import read_file
from hpk.runtimes.base import Holder
from hpk.supervisor.base import linux
from hpk.supervisor.base.linux import close_files_but
from hpk.supervisor.process import execution

_MOUNT_TIMEOUT_S = 60.0
_POLL_S = 0.002


def hold(holder: Holder, argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Start the container, hold it until standard input ends; the exit code of this process."""
    close_files_but()
    signal.set_wakeup_fd(-1)
    execution.reset_signals()
    execution.shield_from_termination()
    children = _Children()
    try:
        _isolate()
        linux.become_subreaper()
        server = _show_image(holder, env, children)
        status = children.run(argv, env)
        if status != 0:
            return os.WEXITSTATUS(status) or 1
        pause_pid = int(read_file(holder.pid_file, 32))
        os.write(1, struct.pack("=q", pause_pid))
        # Whoever reads our output waits for its end too.
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 1)
        children.wait_for_input_or_end((server,), pause_pid)
    except (OSError, ValueError) as error:
        os.write(2, f"cannot hold the container: {error}\n".encode(errors="replace"))
        return 1
    else:
        return 0
    finally:
        children.kill_all()


def _isolate() -> None:
    """A mount namespace of our own, as root of a user namespace where we are not already."""
    parent = os.getppid()
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        linux.map_single_id(0, uid, 0, gid)
    else:
        linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
    linux.die_with_parent(parent)  # new credentials have undone it


def _show_image(holder: Holder, env: Mapping[str, str], children: _Children) -> int:
    """The pid of the program that serves the image, 0 where none does."""
    os.mkdir(holder.image_root, 0o700)
    if not holder.image_argv:
        flags = linux.MS_BIND | linux.MS_REC
        linux.mount(holder.image_path, holder.image_root, None, flags)
        return 0
    if not holder.image_mounts:
        status = children.run(holder.image_argv, env)
        # unsquashfs ends with 2 for what root alone could restore, ownership for example.
        if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) not in (0, 2):
            raise OSError(f"{holder.image_argv[0]} cannot unpack {holder.image_path}")
        return 0
    before = os.stat(holder.image_root).st_dev
    server = children.start(holder.image_argv, env)
    deadline = time.monotonic() + _MOUNT_TIMEOUT_S
    while os.stat(holder.image_root).st_dev == before:
        if os.waitpid(server, os.WNOHANG)[0]:
            raise OSError(f"{holder.image_argv[0]} cannot show {holder.image_path}")
        if time.monotonic() > deadline:
            raise OSError(f"{holder.image_argv[0]} has not mounted {holder.image_path}")
        time.sleep(_POLL_S)
    return server


class _Children:
    """The processes below this one, adopted ones included."""

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Fork and exec a program that dies with us; what it prints goes to standard error."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                linux.die_with_parent(parent)
                null = os.open(os.devnull, os.O_RDONLY)
                os.dup2(null, 0)
                os.dup2(2, 1)
                os.close(null)
                execution.execute(argv, env)
            except BaseException as error:  # a forked child must never return
                os.write(2, f"{error}\n".encode(errors="replace"))
            os._exit(127)
        return pid

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a program to its end; its wait status."""
        return os.waitpid(self.start(argv, env), 0)[1]

    def wait_for_input_or_end(self, needed: tuple[int, ...], pause_pid: int) -> None:
        """Until standard input ends, or one of these children or the pause program does."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
        while True:
            with contextlib.suppress(ChildProcessError):
                while pid := os.waitpid(-1, os.WNOHANG)[0]:
                    if pid in needed:
                        return
            if not _is_there(pause_pid):
                return
            ready, _, _ = select.select([0, read_fd], [], [])
            if 0 in ready and not os.read(0, 1):
                return
            if read_fd in ready:
                os.read(read_fd, 4096)

    def kill_all(self) -> None:
        """SIGKILL until nothing is left. Monitors first, for they would clean up after their
        container; as they end their own children become ours."""
        with contextlib.suppress(ChildProcessError):
            while True:
                for pid in _below(os.getpid()):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _below(pid: int) -> tuple[int, ...]:
    """The children of a process."""
    try:
        text = read_file(f"/proc/{pid}/task/{pid}/children").decode()
    except OSError:
        return ()
    return tuple(int(item) for item in text.split())
