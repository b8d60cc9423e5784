"""Root emulation and its kin: calls that answer "done" and do nothing.

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
from collections.abc import Iterable
from typing import Optional

from hpk.model.frozen import dataclass
from hpk.supervisor.process.seccomp import bpf
from hpk.supervisor.process.seccomp.bpf import instruction

_REFUSED = bpf.fail(errno.EPERM)
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
    program = instruction(bpf.LOAD, bpf.ARCHITECTURE)
    for abi in _MACHINES[machine]:
        block = _block(abi)
        program += instruction(bpf.IF_EQUAL, abi.audit_arch, 0, len(block) // 8) + block
    return program + instruction(bpf.RETURN, bpf.ALLOW)


def kill_of_one(machine: str) -> bytes:
    """A filter that refuses ``kill(-1, …)``, in the same form.

    :raises KeyError: a machine it is not written for.
    """
    program = instruction(bpf.LOAD, bpf.ARCHITECTURE)
    for abi in _MACHINES[machine]:
        block = (
            instruction(bpf.LOAD, bpf.NUMBER),
            instruction(bpf.IF_EQUAL, abi.kill, 0, 3),
            instruction(bpf.LOAD, bpf.argument(0)),
            instruction(bpf.IF_EQUAL, _EVERYBODY, 0, 1),
            instruction(bpf.RETURN, _REFUSED),
            instruction(bpf.RETURN, bpf.ALLOW),
        )
        program += instruction(bpf.IF_EQUAL, abi.audit_arch, 0, len(block)) + b"".join(block)
    return program + instruction(bpf.RETURN, bpf.ALLOW)


def kill_of_process_1(machine: str) -> bytes:
    """A filter that hands ``kill(1, …)`` on to who listens and refuses ``kill(-1, …)``, in the same
    form.

    :raises KeyError: a machine it is not written for.
    """
    program = instruction(bpf.LOAD, bpf.ARCHITECTURE)
    for abi in _MACHINES[machine]:
        block = (
            instruction(bpf.LOAD, bpf.NUMBER),
            instruction(bpf.IF_EQUAL, abi.kill, 0, 3),
            instruction(bpf.LOAD, bpf.argument(0)),
            instruction(bpf.IF_EQUAL, _EVERYBODY, 2, 0),
            instruction(bpf.IF_EQUAL, 1, 2, 0),
            instruction(bpf.RETURN, bpf.ALLOW),
            instruction(bpf.RETURN, _REFUSED),
            instruction(bpf.RETURN, bpf.ASK),
        )
        program += instruction(bpf.IF_EQUAL, abi.audit_arch, 0, len(block)) + b"".join(block)
    return program + instruction(bpf.RETURN, bpf.ALLOW)


def fixed_dispositions(machine: str, numbers: Iterable[int]) -> bytes:
    """A filter under which what becomes of some signals cannot be changed, in the same form.

    :param numbers: of the signals.
    :raises KeyError: a machine it is not written for.
    """
    signals = tuple(numbers)
    program = instruction(bpf.LOAD, bpf.ARCHITECTURE)
    for abi in _MACHINES[machine]:
        block = [
            instruction(bpf.LOAD, bpf.NUMBER),
            instruction(bpf.IF_EQUAL, abi.rt_sigaction, 0, len(signals) + 1),
            instruction(bpf.LOAD, bpf.argument(0)),
        ]
        for index, number in enumerate(signals):
            block.append(instruction(bpf.IF_EQUAL, number, len(signals) - index, 0))
        block += (instruction(bpf.RETURN, bpf.ALLOW), instruction(bpf.RETURN, bpf.DONE))
        program += instruction(bpf.IF_EQUAL, abi.audit_arch, 0, len(block)) + b"".join(block)
    return program + instruction(bpf.RETURN, bpf.ALLOW)


def _block(abi: _Abi) -> bytes:
    """What is done with a call of one architecture; every path ends in a return."""
    tail = [
        instruction(bpf.LOAD, bpf.argument(1)),  # mknod: the mode
        instruction(bpf.JUMP, 1),
        instruction(bpf.LOAD, bpf.argument(2)),  # mknodat: the mode
        instruction(bpf.AND, _S_IFMT),
        instruction(bpf.IF_EQUAL, _S_IFCHR, 2, 0),
        instruction(bpf.IF_EQUAL, _S_IFBLK, 1, 0),
        # Pipes, sockets and files are made as anybody makes them.
        instruction(bpf.RETURN, bpf.ALLOW),
        instruction(bpf.RETURN, bpf.DONE),
    ]
    targets = [(number, len(tail) - 1) for number in abi.emulated]
    targets.append((abi.mknodat, 2))
    if abi.mknod is not None:
        targets.append((abi.mknod, 0))
    head = [instruction(bpf.LOAD, bpf.NUMBER)]
    for index, (number, into_tail) in enumerate(targets):
        # From the instruction after this one: the tests left, the return, then into the tail.
        head.append(instruction(bpf.IF_EQUAL, number, len(targets) - index + into_tail, 0))
    return b"".join((*head, instruction(bpf.RETURN, bpf.ALLOW), *tail))
