"""The few system calls that Python 3.9 has no function for, and what goes with them.

Thin: each raises OSError with the kernel's reason. Decides nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import Optional

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21
PROC_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SECCOMP_CALLS = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 8

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2); ``kind`` is the CLONE_NEW* flag of what the descriptor must be."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, fs_type: Optional[str], flags: int) -> None:
    """mount(2), without data."""
    kind = None if fs_type is None else fs_type.encode()
    arguments = (os.fsencode(source), os.fsencode(target), kind, ctypes.c_ulong(flags), None)
    _check(_libc.mount(*arguments), f"mount {target}")


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero), f"prctl {option}")


def die_with_parent(parent: int) -> None:
    """Have the kernel SIGKILL this process when the thread that forked it ends.

    :param parent: its pid; where it has ended already, this process ends too. 0 for a parent that
        this PID namespace does not show.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(137)


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_inspection() -> None:
    """Until execve, let nobody without rights over the whole node trace this process, or see its
    descriptors and directories in /proc."""
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Let no execve from here on gain privileges."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_from_bounding_set(capability: int) -> None:
    """Have no execve from here on give this capability."""
    _prctl(_PR_CAPBSET_DROP, capability)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def filter_system_calls(program: bytes) -> None:
    """Put a seccomp filter in place, here and for all children; needs forbid_new_privileges."""
    buffer = ctypes.create_string_buffer(program, len(program))
    whole = _FilterProgram(len(program) // 8, ctypes.addressof(buffer))
    zero, mode = ctypes.c_ulong(0), ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    _check(_libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(whole), zero, zero), "prctl seccomp")


def filter_and_listen(program: bytes) -> int:
    """Put a seccomp filter in place that asks about some calls; the descriptor to answer them by
    (hpk.supervisor.process.seccomp.listener), closed by execve. Since Linux 5.0.

    :raises KeyError: a machine whose number of seccomp(2) is not known.
    """
    number = _SECCOMP_CALLS[os.uname().machine]
    buffer = ctypes.create_string_buffer(program, len(program))
    whole = _FilterProgram(len(program) // 8, ctypes.addressof(buffer))
    found = _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_long(_SECCOMP_SET_MODE_FILTER),
        ctypes.c_long(_SECCOMP_FILTER_FLAG_NEW_LISTENER),
        ctypes.byref(whole),
    )
    _check(min(found, 0), "seccomp")
    return int(found)


def map_single_id(inside_uid: int, outside_uid: int, inside_gid: int, outside_gid: int) -> None:
    """Fill the maps of the user namespace this process has just made: one uid, one gid."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside_uid} {outside_uid} 1"),
        ("gid_map", f"{inside_gid} {outside_gid} 1"),
    ):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def close_files_but(*kept: int) -> None:
    """Close every descriptor but the standard ones and these."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):  # the directory's own is closed already
                os.close(int(name))
