"""The smallest payload a runtime can start: it keeps a container's namespaces alive.

A runtime (Apptainer, …) is asked to run this program alone; what the Pod wants then enters the
container's namespaces with its own argv and environment, which so never pass through a runtime's
command line, environment file or shell. The program needs nothing of the image: a static ELF of a
few instructions that writes its pid (8 bytes, native order) to standard output and ends when its
standard input does, which is when whoever holds the other end of that pipe is gone. It blocks all
signals first: Slurm signals every process of a job that is to end, while the container still has
its grace period.
"""

from __future__ import annotations

import struct

from hpk.supervisor.base.elf import static_elf

_X86_64 = bytes.fromhex(
    "6aff"  # push -1 (every signal)
    "31ff"  # xor edi, edi (SIG_BLOCK)
    "4889e6"  # mov rsi, rsp
    "31d2"  # xor edx, edx
    "41ba08000000"  # mov r10d, 8
    "b80e000000"  # mov eax, 14 (rt_sigprocmask)
    "0f05"  # syscall
    "b827000000"  # mov eax, 39 (getpid)
    "0f05"  # syscall
    "50"  # push rax
    "bf01000000"  # mov edi, 1
    "4889e6"  # mov rsi, rsp
    "ba08000000"  # mov edx, 8
    "b801000000"  # mov eax, 1 (write)
    "0f05"  # syscall
    "31ff"  # again: xor edi, edi
    "4889e6"  # mov rsi, rsp
    "ba08000000"  # mov edx, 8
    "31c0"  # xor eax, eax (read)
    "0f05"  # syscall
    "4883f8fc"  # cmp rax, -4 (EINTR)
    "74ec"  # je again
    "4885c0"  # test rax, rax
    "7fe7"  # jg again
    "31ff"  # xor edi, edi
    "b83c000000"  # mov eax, 60 (exit)
    "0f05"  # syscall
)


def _mov(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register


_SVC = 0xD4000001
_MOV_X1_SP = 0x910003E1
_AARCH64 = struct.pack(
    "<32I",
    0x92800000,  # mov x0, #-1 (every signal)
    0xF81F0FE0,  # str x0, [sp, #-16]!
    _mov(0, 0),  # SIG_BLOCK
    _MOV_X1_SP,
    _mov(2, 0),
    _mov(3, 8),
    _mov(8, 135),  # rt_sigprocmask
    _SVC,
    _mov(8, 172),  # getpid
    _SVC,
    0xF81F0FE0,  # str x0, [sp, #-16]!
    _mov(0, 1),
    _MOV_X1_SP,
    _mov(2, 8),
    _mov(8, 64),  # write
    _SVC,
    _mov(0, 0),  # again:
    _MOV_X1_SP,
    _mov(2, 8),
    _mov(8, 63),  # read
    _SVC,
    0xB100101F,  # cmn x0, #4 (EINTR)
    0x54000000 | (-6 & 0x7FFFF) << 5,  # b.eq again
    0xF100001F,  # cmp x0, #0
    0x54000000 | (-8 & 0x7FFFF) << 5 | 0xC,  # b.gt again
    _mov(0, 0),
    _mov(8, 93),  # exit
    _SVC,
    *(0xD503201F,) * 4,  # nop
)

_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}


def pause_elf(machine: str) -> bytes:
    """The program for a machine as os.uname names it.

    :raises KeyError: a machine it is not written for.
    """
    return static_elf(machine, _MACHINES[machine])
