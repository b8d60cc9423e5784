"""A command on a terminal, as a person has it before him. Runs by itself in a lab.

    python3 terminal_driver.py STEPS COMMAND…

STEPS is JSON, a list of [what, value]: expect (a text in what came since the last), send, size
([rows, columns]), kill (a signal to the command). It ends as the command does, and what the command
said is on standard output.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time

_PATIENCE_S = 90.0


def _set_size(fd: int, size: list[int]) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))


def _read(fd: int, until_mono_s: float) -> bytes:
    """What there is; b"" at the end.

    :raises TimeoutError: nothing came.
    """
    ready, _, _ = select.select([fd], [], [], max(0.0, until_mono_s - time.monotonic()))
    if not ready:
        raise TimeoutError
    try:
        return os.read(fd, 65536)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def main(steps: list[tuple[str, object]], command: list[str]) -> int:
    """The command's exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    _set_size(fd, [24, 80])
    said = b""
    position = 0
    for what, value in steps:
        if what == "expect":
            wanted = str(value).encode()
            until = time.monotonic() + _PATIENCE_S
            while wanted not in said[position:]:
                try:
                    data = _read(fd, until)
                except TimeoutError:
                    data = b""
                if not data:
                    sys.stdout.write(said.decode(errors="replace"))
                    sys.exit(f"never said {value!r}")
                said += data
            position = said.index(wanted, position) + len(wanted)
        elif what == "send":
            os.write(fd, str(value).encode())
        elif what == "size" and isinstance(value, list):
            _set_size(fd, value)
        elif what == "kill":
            os.kill(pid, int(str(value)))
    while data := _read(fd, time.monotonic() + _PATIENCE_S):
        said += data
    sys.stdout.write(said.decode(errors="replace"))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
