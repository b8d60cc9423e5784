"""The default profile against the one that this machine's engines have, made by libseccomp.

Debian's golang-github-containers-common brings the latter, podman the library. Later versions of
the profile decide a few calls anew, as ours does; these differences are named here, and there are
no others.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpk.model.rights import DEFAULT_CAPABILITIES
from hpk.supervisor.process.seccomp import bpf
from hpk.supervisor.process.seccomp.default_profile import default_profile
from tests.seccomp import decide

PROFILE = Path("/usr/share/containers/seccomp.json")
ALLOWED, KILLED = 0x7FFF0000, 0x80000000
NOT_PERMITTED, UNKNOWN = bpf.fail(errno.EPERM), bpf.fail(errno.ENOSYS)
ARCHITECTURES = {
    "x86_64": {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X86": 0x40000003},
    "aarch64": {"SCMP_ARCH_AARCH64": 0xC00000B7, "SCMP_ARCH_ARM": 0x40000028},
}
GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
MANY = (*DEFAULT_CAPABILITIES, "SYS_ADMIN", "SYS_PTRACE", "SYS_TIME", "BPF", "DAC_READ_SEARCH")
OPERATORS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4}
DECIDED_LATER = {
    "cachestat",
    "fanotify_init",
    "fchmodat2",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "io_pgetevents_time64",
    "map_shadow_stack",
    "quotactl_fd",
}
ARGUMENTS = (
    *((value, 0, 0) for value in (0, 1, 8, 0x20000, 0x20008, 0xFFFFFFFF)),
    *((socket.AF_NETLINK, 3, 9), (socket.AF_NETLINK, 3, 0), (socket.AF_INET, 1, 9)),
)


class Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp")
    if name is None or not PROFILE.exists():
        pytest.skip("no libseccomp, or no profile of an engine, is on this machine")
    found = ctypes.CDLL(name)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    found.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    found.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return found


def rules(machine: str, capabilities: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Those of the profile that hold for such a container."""
    has = {f"CAP_{name}" for name in capabilities}
    for rule in json.loads(PROFILE.read_text())["syscalls"]:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if has & set(unwanted.get("caps", ())) or not has >= set(wanted.get("caps", ())):
            continue
        if GO_NAMES[machine] in wanted.get("arches", (GO_NAMES[machine],)):
            yield rule


def engines_filter(library: ctypes.CDLL, machine: str, capabilities: tuple[str, ...]) -> bytes:
    """As an engine's runtime makes it."""
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(UNKNOWN)))
    for audit in ARCHITECTURES[machine].values():
        library.seccomp_arch_add(context, ctypes.c_uint32(audit))
    for other in ARCHITECTURES.keys() - {machine}:
        for audit in ARCHITECTURES[other].values():
            library.seccomp_arch_remove(context, ctypes.c_uint32(audit))
    for rule in rules(machine, capabilities):
        action = ALLOWED if rule["action"] == "SCMP_ACT_ALLOW" else bpf.fail(rule["errnoRet"])
        tests = [
            Comparison(item["index"], OPERATORS[item["op"]], item["value"], 0)
            for item in rule.get("args") or ()
        ]
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1:
                array = (Comparison * max(1, len(tests)))(*tests)
                library.seccomp_rule_add_array(
                    context, ctypes.c_uint32(action), number, ctypes.c_uint(len(tests)), array
                )
    memory = os.memfd_create("filter")
    assert library.seccomp_export_bpf(context, memory) == 0
    library.seccomp_release(context)
    os.lseek(memory, 0, os.SEEK_SET)
    with os.fdopen(memory, "rb") as file:
        return file.read()


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("capabilities", [(), DEFAULT_CAPABILITIES, MANY], ids=len)
def test_it_is_the_engines(
    library: ctypes.CDLL, machine: str, capabilities: tuple[str, ...]
) -> None:
    theirs = engines_filter(library, machine, capabilities)
    ours = default_profile(machine, frozenset(capabilities))
    differences = set()
    for audit in ARCHITECTURES[machine].values():
        for number in (*range(600), *range(0xF0000, 0xF0008), 0x3FFFFFFF):
            name = library.seccomp_syscall_resolve_num_arch(audit, number)
            if name is None and number in range(449, 600):
                continue  # the library is older than the call
            asks = ARGUMENTS if name in (b"personality", b"socket") else ARGUMENTS[:1]
            for arguments in asks:
                if decide(theirs, audit, number, *arguments) != decide(
                    ours, audit, number, *arguments
                ):
                    differences.add(name.decode() if name else str(number))
    assert differences <= DECIDED_LATER


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_other_architectures_and_families_of_sockets(machine: str) -> None:
    program = default_profile(machine, frozenset(DEFAULT_CAPABILITIES))
    assert decide(program, 0x12345678, 0) == KILLED
    native = next(iter(ARCHITECTURES[machine].values()))
    assert decide(program, native, 0x40000000) == UNKNOWN  # x32
    number = {"x86_64": 41, "aarch64": 198}[machine]
    for family, answer in ((2, ALLOWED), (38, NOT_PERMITTED), (40, NOT_PERMITTED)):
        assert decide(program, native, number, family, 1, 0) == answer


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_path_ends_in_a_return(machine: str) -> None:
    program = default_profile(machine, frozenset())
    assert len(program) // bpf.INSTRUCTION_BYTES < 4096  # BPF_MAXINSNS
    for audit in ARCHITECTURES[machine].values():
        for number in (0, 1, 599, 0xFFFFFFFF):
            assert decide(program, audit, number) in (ALLOWED, NOT_PERMITTED, UNKNOWN)
