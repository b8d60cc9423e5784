"""The programs that enter a container, and those that run beside it on the host."""

from __future__ import annotations

import os
from typing import Optional

from hpk.supervisor.process import terminal
from hpk.supervisor.process.enter import Enter
from hpk.supervisor.process.pod_messages import Run


def start_program(run: Run, enter: Enter, fds: tuple[int, ...]) -> tuple[int, int]:
    """Fork what becomes the program; its pid (see Enter.fork), and what tells why it could not: a
    pipe that ends without a word when the program has been executed.

    :param enter: the way to where it runs.
    :param fds: see Run.
    :raises OSError: there are no more processes or descriptors, the kernel refuses a namespace, or
        the container has ended.
    """
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    # The first program of a container comes back from the fork within it.
    of_node = terminal.open_master() if run.terminal is not None else None
    pid = -1
    try:
        pid = enter.fork(run)
    except OSError:
        os.close(error_read)
        os.close(error_write)
        raise
    finally:
        if of_node is not None and pid != 0:
            os.close(of_node)
    if pid == 0:
        try:
            os.setsid()
            enter.become(run, lambda: _take_standard(run, fds, of_node))
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(error_write, str(error).encode(errors="replace")[:32768])
        os._exit(127)
    os.close(error_write)
    return pid, error_read


def _take_standard(run: Run, fds: tuple[int, ...], of_node: Optional[int]) -> None:
    if run.terminal is not None:
        terminal.take_terminal(of_node, fds[0], run.terminal)
        return
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
