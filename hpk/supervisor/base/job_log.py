"""The job's own log: what the supervisor, its podinit and the ranks' keepers say of themselves.

It lies on the shared file system, where whoever writes may hang, and whoever merely closes it: so
the supervisor keeps it to itself (`divert`), gives its children a pipe in its place, and hands all
lines on (`log_through`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from typing import Callable, Optional

_MAX_WAITING = 1000

_log_path = ""
_fd = 2
_hand_on: Optional[Callable[[Callable[[], None]], None]] = None
_waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)


def log_to(path: str) -> None:
    """Send the log to a file: a rank's standard error is the container's."""
    global _log_path
    _log_path = path


def log_through(hand_on: Optional[Callable[[Callable[[], None]], None]]) -> None:
    """Have lines written by whoever does the work that ``hand_on`` is given; None: by their own
    thread."""
    global _hand_on
    _hand_on = hand_on


def divert() -> int:
    """Put a pipe in the place of standard output and error, for this process and its children.

    :returns: its other end, not blocking; what comes of it is for `add`.
    """
    global _fd
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_fd, False)
    _fd = os.dup(2)
    for number in (1, 2):
        os.dup2(write_fd, number)
    os.close(write_fd)
    return read_fd


def log_to_stderr() -> None:
    """In a child after `divert`: write where one's children do."""
    global _fd
    _fd = 2


def log(message: str, **fields: object) -> None:
    """One line in the job's own log. Never a secret, a token or an environment value."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    tail = "".join(f" {name}={value}" for name, value in fields.items())
    add(f"{stamp} {message}{tail}\n".encode(errors="replace"))


def add(text: bytes) -> None:
    """The same for what is formed already."""
    _waiting.append(text)
    if _hand_on is not None:
        _hand_on(_write_waiting)
    else:
        _write_waiting()


def _write_waiting() -> None:
    with contextlib.suppress(IndexError):
        while True:
            _write(_waiting.popleft())


def _write(line: bytes) -> None:
    with contextlib.suppress(OSError):
        if not _log_path:
            os.write(_fd, line)
            return
        fd = os.open(_log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
