"""What the ranks of a run and the supervisor tell each other.

Down: the bundle, through the launcher's standard input, so that no secret touches the shared file
system. Up: small files in the attempt's directory: the step's id, why a rank could not start its
program, the termination message of the first rank.
"""

from __future__ import annotations

import os

from hpk.durable import read_file
from hpk.model import codec
from hpk.model.bundle import Bundle
from hpk.model.errors import ParseError
from hpk.model.layout import AttemptLayout

_LENGTH_DIGITS = 12


def directory(layout: AttemptLayout) -> str:
    """Where these files are."""
    return f"{layout.root}/mpi"


def path(layout: AttemptLayout, container: str, restart: int, kind: str) -> str:
    """One of them; kind is ``step``, ``error`` or ``message``."""
    return f"{directory(layout)}/{container}.{restart}.{kind}"


def bundle_stdin(bundle: Bundle) -> int:
    """A descriptor that gives the bundle to whoever reads it, its length first."""
    body = codec.dumps(bundle).encode()
    memory = os.memfd_create("bundle", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(b"%0*d" % (_LENGTH_DIGITS, len(body)) + body)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def read_bundle(fd: int) -> Bundle:
    """What bundle_stdin wrote, and not a byte more."""
    text = _read_exactly(fd, _LENGTH_DIGITS)
    if not text.isdigit():
        raise ParseError("the launcher's standard input does not begin with the bundle")
    return codec.loads(Bundle, _read_exactly(fd, int(text)))


def _read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(fd, count - len(data))
        if not chunk:
            raise ParseError("the launcher's standard input ends within the bundle")
        data += chunk
    return data


def _text(file_path: str) -> str:
    try:
        return read_file(file_path, 8192).decode(errors="replace").strip()
    except OSError:
        return ""


def start_error(layout: AttemptLayout, container: str, restart: int) -> str:
    """Why the program of a rank could not be started; "" where all were."""
    return _text(path(layout, container, restart, "error"))


def step_id(layout: AttemptLayout, container: str, restart: int) -> str:
    """``JOB.STEP`` of the run, "" while it is not known."""
    text = _text(path(layout, container, restart, "step"))
    return text if all(part.isdigit() for part in text.split(".")) and "." in text else ""


def termination_message(layout: AttemptLayout, container: str, restart: int) -> str:
    """Path of the termination message of rank 0's node."""
    return path(layout, container, restart, "message")
