"""The filter that container engines give to programs by default, as containers/common has it.

It leaves out what exploits of kernels are made of and programs hardly use: io_uring, userfaultfd,
bpf, modules, clocks, old and obscure calls. What needs a capability is there for who has it. Calls
for mounts and namespaces are allowed: the kernel asks for capabilities over the namespace itself,
and without them a program of its own could not be put in a sandbox inside the container.

Unlike upstream's, x32 is refused whole: few kernels have it. Every other architecture than the
machine's own and its 32-bit one is, too.
"""

from __future__ import annotations

import errno
import socket

from hpk.supervisor.process.seccomp import bpf, system_calls
from hpk.supervisor.process.seccomp.bpf import instruction

_ABIS = {
    "x86_64": ((0xC000003E, 0), (0x40000003, 1)),
    "aarch64": ((0xC00000B7, 2), (0x40000028, 3)),
}
"""By machine: the audit architecture of each of its ABIs, and its column in the tables."""

_ALLOW = instruction(bpf.RETURN, bpf.ALLOW)
_REFUSE = instruction(bpf.RETURN, bpf.fail(errno.EPERM))
_UNKNOWN = instruction(bpf.RETURN, bpf.fail(errno.ENOSYS))
_KILL = instruction(bpf.RETURN, 0x80000000)  # SECCOMP_RET_KILL_PROCESS

_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, each with UNAME26 too, and the question which it is."""
_AF_ALG, _AF_VSOCK = 38, 40
_NETLINK_AUDIT = 9


def default_profile(machine: str, capabilities: frozenset[str]) -> bytes:
    """The filter as an array of struct sock_filter.

    :param machine: as os.uname names it.
    :param capabilities: that programs under it have, in capitals without ``CAP_``.
    :raises KeyError: a machine it is not written for.
    """
    program = instruction(bpf.LOAD, bpf.ARCHITECTURE)
    for audit_arch, column in _ABIS[machine]:
        block = instruction(bpf.LOAD, bpf.NUMBER) + bpf.search(_runs(column, capabilities))
        over = len(block) // bpf.INSTRUCTION_BYTES
        program += instruction(bpf.IF_EQUAL, audit_arch, 1, 0) + instruction(bpf.JUMP, over) + block
    return program + _KILL


def _runs(column: int, capabilities: frozenset[str]) -> list[tuple[int, bytes]]:
    """What is to be done from each number on where it changes."""
    answers = _answers(column, capabilities)
    runs = [(0, _UNKNOWN)]
    for number in sorted({n + step for n in answers for step in (0, 1)}):
        answer = answers.get(number, _UNKNOWN)
        if number == 0:
            runs = [(0, answer)]
        elif answer != runs[-1][1]:
            runs.append((number, answer))
    return runs


def _answers(column: int, capabilities: frozenset[str]) -> dict[int, bytes]:
    """What is to be done with the calls that the profile knows, by number."""
    answers = dict.fromkeys(_numbers(system_calls.ALLOWED, column).values(), _ALLOW)
    answers.update(dict.fromkeys(_numbers(system_calls.REFUSED, column).values(), _REFUSE))
    granted = {
        name
        for capability in capabilities
        for name in system_calls.BY_CAPABILITY.get(capability, ())
    }
    for name, number in _numbers(system_calls.OF_CAPABILITIES, column).items():
        answers[number] = _ALLOW if name in granted else _REFUSE
    by_arguments = _numbers(system_calls.BY_ARGUMENTS, column)
    answers[by_arguments["personality"]] = _personality()
    answers[by_arguments["socket"]] = _socket("AUDIT_WRITE" in capabilities)
    return answers


def _numbers(table: str, column: int) -> dict[str, int]:
    found = {}
    for entry in table.replace("\n", " | ").split(" | "):
        name, *numbers = entry.split() or ("",)
        if name and numbers[column] != "-":
            found[name] = int(numbers[column])
    return found


def _personality() -> bytes:
    block = instruction(bpf.LOAD, bpf.argument(0))
    for index, value in enumerate(_PERSONALITIES):
        block += instruction(bpf.IF_EQUAL, value, len(_PERSONALITIES) - index, 0)
    return block + _UNKNOWN + _ALLOW


def _socket(may_audit: bool) -> bytes:
    """Not the kernel's ciphers, not the machine's host, and its audit log for who may write it."""
    audit = b""
    if not may_audit:
        audit = (
            instruction(bpf.IF_EQUAL, socket.AF_NETLINK, 0, 3)
            + instruction(bpf.LOAD, bpf.argument(2))
            + instruction(bpf.IF_EQUAL, _NETLINK_AUDIT, 0, 1)
            + instruction(bpf.RETURN, bpf.fail(errno.EINVAL))
        )
    over = len(audit) // bpf.INSTRUCTION_BYTES + 1
    return (
        instruction(bpf.LOAD, bpf.argument(0))
        + instruction(bpf.IF_EQUAL, _AF_ALG, over + 1, 0)
        + instruction(bpf.IF_EQUAL, _AF_VSOCK, over, 0)
        + audit
        + _ALLOW
        + _REFUSE
    )
