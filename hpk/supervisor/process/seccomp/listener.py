"""Answering system calls that a filter asks about (seccomp_unotify(2)). x86_64 and aarch64.

Every call is answered "done"; what that means is up to who listens.
"""

from __future__ import annotations

import fcntl
import select
import struct
from typing import Optional

from hpk.model.frozen import dataclass

_CALL = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_RECEIVE = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND


@dataclass(frozen=True)
class Call:
    """A system call that waits for its answer."""

    id: int
    arguments: tuple[int, ...]


def next_call(listener: int) -> Optional[Call]:
    """One that waits; None where its caller was killed meanwhile. Does not wait.

    :raises EOFError: there is nobody any more who could call.
    """
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    events = [event for _, event in poller.poll(0)]
    if not any(event & select.POLLIN for event in events):
        if events:
            raise EOFError
        return None
    try:
        found = fcntl.ioctl(listener, _RECEIVE, bytes(_CALL.size))
    except OSError:
        return None
    call_id, _pid, _flags, _number, _arch, _at, *arguments = _CALL.unpack(found)
    return Call(call_id, tuple(arguments))


def answer_done(listener: int, call: Call) -> None:
    """The call returns 0; a caller that has gone is no error."""
    try:
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(call.id, 0, 0, 0))
    except OSError:
        return
