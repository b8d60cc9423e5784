"""Filters of system calls (seccomp(2)).

Root emulation: what only real root may do answers "done" and does nothing.

A container whose root is one mapped id cannot give a file to anybody else, become anybody else or
make a device, and the entrypoints of many images do so first of all. A filter (seccomp(2)) for
these system calls lets them pass; the process stays uid 0. Every other call goes through as it is,
and so does everything of an architecture not named here.

A rank is in the host's PID namespace, for Slurm must see it, and kill(-1) of one would reach every
process the user has on the node, those of his other jobs too.

Slurm signals every process of a job that is to end, a container's FUSE servers too, and Apptainer
undoes the signal mask it was started with. So what is ignored then stays ignored: the calls that
would change it answer "done".
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

_NR, _ARCH, _ARGUMENT_0, _ARGUMENT_1, _ARGUMENT_2 = 0, 4, 16, 24, 32  # in struct seccomp_data
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
_DONE = 0x00050000  # SECCOMP_RET_ERRNO with errno 0: the call returns 0
_REFUSED = _DONE | errno.EPERM
_EVERYBODY = 0xFFFFFFFF  # -1 as kill's pid_t
_S_IFMT, _S_IFCHR, _S_IFBLK = 0o170000, 0o020000, 0o060000


@dataclass(frozen=True)
class _Abi:
    """System call numbers of one architecture; ``mknod`` is None where there is only mknodat."""

    audit_arch: int
    emulated: tuple[int, ...]
    mknod: Optional[int]
    mknodat: int
    kill: int
    rt_sigaction: int


# chown, fchown, lchown, fchownat; setuid, setgid, setreuid, setregid, setgroups, setresuid,
# setresgid, setfsuid, setfsgid. The 32-bit ones have each a second, older number.
_X86_64 = _Abi(
    0xC000003E, (92, 93, 94, 260, 105, 106, 113, 114, 116, 117, 119, 122, 123), 133, 259, 62, 13
)
_OF_32_BITS = (
    *(182, 95, 16, 23, 46, 70, 71, 81, 164, 170, 138, 139),
    *(212, 207, 198, 213, 214, 203, 204, 206, 208, 210, 215, 216),
)
_I386 = _Abi(0x40000003, (*_OF_32_BITS, 298), 14, 297, 37, 174)
_AARCH64 = _Abi(
    0xC00000B7, (54, 55, 143, 144, 145, 146, 147, 149, 151, 152, 159), None, 33, 129, 134
)
_ARM = _Abi(0x40000028, (*_OF_32_BITS, 325), 14, 324, 37, 174)
_MACHINES = {"x86_64": (_X86_64, _I386), "aarch64": (_AARCH64, _ARM)}


def root_emulation(machine: str) -> bytes:
    """The filter for a machine as os.uname names it, as an array of struct sock_filter.

    x32 is let through: its numbers carry a bit that is in none of these.

    :raises KeyError: a machine it is not written for.
    """
    program = _instruction(_LOAD, _ARCH)
    for abi in _MACHINES[machine]:
        block = _block(abi)
        program += _instruction(_IF_EQUAL, abi.audit_arch, 0, len(block) // 8) + block
    return program + _instruction(_RETURN, _ALLOW)


def kill_of_one(machine: str) -> bytes:
    """A filter that refuses ``kill(-1, …)``, in the same form.

    :raises KeyError: a machine it is not written for.
    """
    program = _instruction(_LOAD, _ARCH)
    for abi in _MACHINES[machine]:
        block = (
            _instruction(_LOAD, _NR),
            _instruction(_IF_EQUAL, abi.kill, 0, 3),
            _instruction(_LOAD, _ARGUMENT_0),
            _instruction(_IF_EQUAL, _EVERYBODY, 0, 1),
            _instruction(_RETURN, _REFUSED),
            _instruction(_RETURN, _ALLOW),
        )
        program += _instruction(_IF_EQUAL, abi.audit_arch, 0, len(block)) + b"".join(block)
    return program + _instruction(_RETURN, _ALLOW)


def fixed_dispositions(machine: str, numbers: Iterable[int]) -> bytes:
    """A filter under which what becomes of some signals cannot be changed, in the same form.

    :param numbers: of the signals.
    :raises KeyError: a machine it is not written for.
    """
    signals = tuple(numbers)
    program = _instruction(_LOAD, _ARCH)
    for abi in _MACHINES[machine]:
        block = [
            _instruction(_LOAD, _NR),
            _instruction(_IF_EQUAL, abi.rt_sigaction, 0, len(signals) + 1),
            _instruction(_LOAD, _ARGUMENT_0),
        ]
        for index, number in enumerate(signals):
            block.append(_instruction(_IF_EQUAL, number, len(signals) - index, 0))
        block += (_instruction(_RETURN, _ALLOW), _instruction(_RETURN, _DONE))
        program += _instruction(_IF_EQUAL, abi.audit_arch, 0, len(block)) + b"".join(block)
    return program + _instruction(_RETURN, _ALLOW)


def _block(abi: _Abi) -> bytes:
    """What is done with a call of one architecture; every path ends in a return."""
    tail = [
        _instruction(_LOAD, _ARGUMENT_1),  # mknod: the mode
        _instruction(_JUMP, 1),
        _instruction(_LOAD, _ARGUMENT_2),  # mknodat: the mode
        _instruction(_AND, _S_IFMT),
        _instruction(_IF_EQUAL, _S_IFCHR, 2, 0),
        _instruction(_IF_EQUAL, _S_IFBLK, 1, 0),
        _instruction(_RETURN, _ALLOW),  # pipes, sockets and files are made as anybody makes them
        _instruction(_RETURN, _DONE),
    ]
    targets = [(number, len(tail) - 1) for number in abi.emulated]
    targets.append((abi.mknodat, 2))
    if abi.mknod is not None:
        targets.append((abi.mknod, 0))
    head = [_instruction(_LOAD, _NR)]
    for index, (number, into_tail) in enumerate(targets):
        # From the instruction after this one: the tests left, the return, then into the tail.
        head.append(_instruction(_IF_EQUAL, number, len(targets) - index + into_tail, 0))
    return b"".join((*head, _instruction(_RETURN, _ALLOW), *tail))


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, operand)
