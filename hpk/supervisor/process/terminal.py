"""A program's terminal: opened where the program runs, its other side handed to the supervisor.

It is one of the container's own /dev/pts where that has one, so that it has a name in there and
``tty`` and ``ps`` tell it; else one of the node's, which works as well but has no name inside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from typing import Optional

from hpk.model.frames import TerminalSize

_MASTERS = ("/dev/pts/ptmx", "/dev/ptmx")
_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441  # since Linux 4.13
_MAX_CELLS = 0xFFFF
_FLAGS = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC


def set_size(terminal: int, size: TerminalSize) -> None:
    """Tell a terminal, by either of its sides, how big it is; its programs get SIGWINCH.

    :raises OSError: it is none.
    """
    rows, columns = (min(max(cells, 0), _MAX_CELLS) for cells in (size.height, size.width))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))


def open_master() -> Optional[int]:
    """The master of a new terminal of the mount namespace this process is in; None: it has none.

    Whatever a container may have put in the place of the device is opened and looked at, no more.
    """
    for path in _MASTERS:
        with contextlib.suppress(OSError):
            master = os.open(path, _FLAGS | os.O_NONBLOCK)
            try:
                fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4)
            except OSError:
                os.close(master)
                continue
            os.set_blocking(master, True)
            return master
    return None


def take_terminal(instead: Optional[int], to: int, size: TerminalSize) -> None:
    """Give this process, which leads a session, a terminal, and its master to who waits for it.

    :param instead: the master of another, where there is none to be had here.
    :param to: a socket.
    :raises OSError: there is none at all, or the kernel refuses.
    """
    master = open_master()
    if master is None:
        master = instead
    if master is None:
        raise OSError("cannot open a terminal: neither the container nor the node has /dev/pts")
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
    # Not by its name, under which somebody may have put another file.
    slave = fcntl.ioctl(master, _TIOCGPTPEER, _FLAGS)
    set_size(master, size)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    with socket.socket(fileno=os.dup(to)) as sock:
        socket.send_fds(sock, [b"m"], [master])
    for standard in (0, 1, 2):
        os.dup2(slave, standard)
    os.close(slave)
    os.close(master)


def receive_descriptor(sock: socket.socket) -> int:
    """What a program has sent on its way to execve, a terminal's master for one; does not wait.

    :raises OSError: nothing has come, or without its descriptor: there are no more, for now.
    """
    sock.setblocking(False)
    _, fds, _, _ = socket.recv_fds(sock, 1, 1)
    if not fds:
        raise OSError("it came without its descriptor")
    os.set_inheritable(fds[0], False)
    return fds[0]
