"""Capabilities by name, and their removal from what a program may ever have.

Source: include/uapi/linux/capability.h.
"""

from __future__ import annotations

from collections.abc import Iterable

from hpk.durable import read_file
from hpk.supervisor.base import linux

_NAMES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
ALL = "ALL"


def capability_numbers(names: Iterable[str], last: int) -> tuple[int, ...]:
    """Numbers of capabilities, each in capitals without ``CAP_``, or ``ALL``; one that the kernel
    does not know is none that a program could have.

    :param last: the kernel's highest.
    """
    wanted = set(names)
    if ALL in wanted:
        return tuple(range(last + 1))
    return tuple(n for n, name in enumerate(_NAMES) if name in wanted and n <= last)


def drop_capabilities(names: Iterable[str]) -> None:
    """Take capabilities from this process's bounding set, so that no execve gives them back.

    :raises OSError: the kernel refuses.
    """
    wanted = tuple(names)
    if not wanted:
        return
    last = int(read_file("/proc/sys/kernel/cap_last_cap", 16))
    for number in capability_numbers(wanted, last):
        linux.drop_from_bounding_set(number)
