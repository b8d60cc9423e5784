"""The job's own log: what the supervisor, its podinit and the ranks' keepers say of themselves."""

from __future__ import annotations

import contextlib
import os
import time

_log_path = ""


def log_to(path: str) -> None:
    """Send the log to a file: a rank's standard error is the container's."""
    global _log_path
    _log_path = path


def log(message: str, **fields: object) -> None:
    """One line in the job's own log. Never a secret, a token or an environment value."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    tail = "".join(f" {name}={value}" for name, value in fields.items())
    line = f"{stamp} {message}{tail}\n".encode(errors="replace")
    with contextlib.suppress(OSError):
        if not _log_path:
            os.write(2, line)
            return
        fd = os.open(_log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
