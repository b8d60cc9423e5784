"""The instructions that a filter of system calls is made of.

A filter is a program of the kernel's old packet filter over struct seccomp_data, given as an array
of struct sock_filter: load a word, compare it, jump forwards, return what is to be done. Sources:
linux/filter.h, linux/bpf_common.h, linux/seccomp.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

NUMBER, ARCHITECTURE = 0, 4
"""Where struct seccomp_data has the number of the call and the architecture it is made in."""

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP = 0x05  # BPF_JMP | BPF_JA
IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
DONE = 0x00050000  # SECCOMP_RET_ERRNO with errno 0: the call returns 0

ASK = 0x7FC00000  # SECCOMP_RET_USER_NOTIF: whoever listens answers the call

INSTRUCTION_BYTES = 8
_FARTHEST = 255  # a comparison's jumps are one byte each


def instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; jumps count from the instruction after it."""
    return struct.pack("<HBBI", code, if_true, if_false, operand)


def argument(index: int) -> int:
    """Where struct seccomp_data has the lower half of an argument of the call."""
    return 16 + 8 * index


def fail(errno: int) -> int:
    """What makes the call fail with this error and do nothing (SECCOMP_RET_ERRNO)."""
    return DONE | errno


def search(runs: Sequence[tuple[int, bytes]]) -> bytes:
    """What finds the run that the loaded word lies in, by halves, and does what that is for.

    :param runs: the lowest word of each, ascending, the first 0; what to do, which ends in a
        return.
    """
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    below, above = search(runs[:middle]), search(runs[middle:])
    skipped = len(below) // INSTRUCTION_BYTES
    if skipped <= _FARTHEST:
        return instruction(IF_AT_LEAST, runs[middle][0], skipped, 0) + below + above
    compare = instruction(IF_AT_LEAST, runs[middle][0], 0, 1) + instruction(JUMP, skipped)
    return compare + below + above
