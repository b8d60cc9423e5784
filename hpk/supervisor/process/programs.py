"""The programs that enter a container, and those that run beside it on the host."""

from __future__ import annotations

import os

from hpk.supervisor.process.enter import Enter
from hpk.supervisor.process.pod_messages import Run


def start_program(run: Run, enter: Enter, fds: tuple[int, ...]) -> tuple[int, int]:
    """Fork what becomes the program; its pid (see Enter.fork), and what tells why it could not: a
    pipe that ends without a word when the program has been executed.

    :param enter: the way to where it runs.
    :param fds: standard input, output and error.
    :raises OSError: there are no more processes or descriptors, the kernel refuses a namespace, or
        the container has ended.
    """
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    try:
        pid = enter.fork(run)
    except OSError:
        os.close(error_read)
        os.close(error_write)
        raise
    if pid == 0:
        try:
            os.setsid()
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number)
            enter.become(run)
        except BaseException as error:  # a forked child must never return into its parent's code
            os.write(error_write, str(error).encode(errors="replace")[:32768])
        os._exit(127)
    os.close(error_write)
    return pid, error_read
