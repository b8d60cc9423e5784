"""The filters of system calls: what each answers, in the kernel and on other machines."""

from __future__ import annotations

import json
import re
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hpk.supervisor.process.execution import TERMINATIONS
from hpk.supervisor.process.seccomp import emulation
from tests.seccomp import decide

DONE, ALLOWED = 0x00050000, 0x7FFF0000
NAMES = (
    "chown",
    "fchown",
    "lchown",
    "fchownat",
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setgroups",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
)


HEADERS = {
    ("x86_64", 0xC000003E): "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    ("x86_64", 0x40000003): "/usr/include/x86_64-linux-gnu/asm/unistd_32.h",
    ("aarch64", 0xC00000B7): "/usr/include/asm-generic/unistd.h",
}


@pytest.mark.parametrize(("machine", "arch"), HEADERS)
def test_root_emulation_answers_these_calls_and_no_others(machine: str, arch: int) -> None:
    header = Path(HEADERS[machine, arch])
    if not header.exists():
        pytest.skip(f"no {header} here")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in lines}
    program = emulation.root_emulation(machine)
    wanted = {numbers[n] for name in NAMES for n in (name, f"{name}32") if n in numbers}
    device, pipe = stat.S_IFCHR | 0o600, stat.S_IFIFO | 0o600
    for number in range(600):
        answer = decide(program, arch, number, 1, pipe, pipe)
        assert answer == (DONE if number in wanted else ALLOWED), number
    assert decide(program, arch, numbers["mknodat"], 1, 1, device) == DONE
    assert decide(program, arch, numbers["mknodat"], 1, device, pipe) == ALLOWED
    if "mknod" in numbers:
        assert decide(program, arch, numbers["mknod"], 1, device) == DONE
        assert decide(program, arch, numbers["mknod"], 1, stat.S_IFBLK) == DONE
        assert decide(program, arch, numbers["mknod"], 1, stat.S_IFREG) == ALLOWED
    assert decide(program, 0x12345678, numbers["fchownat"]) == ALLOWED
    assert decide(program, arch, 0x40000000 | numbers["fchownat"]) == ALLOWED


FILTERED = """
import ctypes, json, os, stat, sys
from hpk.supervisor.base import linux
from hpk.supervisor.process.seccomp import emulation
linux.forbid_new_privileges()
linux.filter_system_calls(emulation.root_emulation(os.uname().machine))
path = sys.argv[1]
os.chown(path, 4711, 4712)
os.setgroups([4711])
os.setgid(4712)
os.setuid(4711)
os.mknod(path + ".device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
os.mkfifo(path + ".pipe")
info = os.stat(path)
print(json.dumps([info.st_uid == os.getuid(), os.getuid() != 4711, sorted(os.listdir("."))]))
"""


def test_root_emulation_in_this_kernel(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", FILTERED, "file"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [True, True, ["file", "file.pipe"]]


@pytest.mark.parametrize(("machine", "arch"), HEADERS)
def test_fixed_dispositions_cover_these_signals_and_no_others(machine: str, arch: int) -> None:
    header = Path(HEADERS[machine, arch])
    if not header.exists():
        pytest.skip(f"no {header} here")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    sigaction = {name: int(number) for name, number in lines}["rt_sigaction"]
    program = emulation.fixed_dispositions(machine, TERMINATIONS)
    for number in range(1, 65):
        answer = decide(program, arch, sigaction, number)
        assert answer == (DONE if number in TERMINATIONS else ALLOWED), number
        assert decide(program, arch, sigaction + 1, number) == ALLOWED
    assert decide(program, 0x12345678, sigaction, signal.SIGTERM) == ALLOWED


SHIELDED = """
import os, signal, subprocess, sys
from hpk.supervisor.process import execution
execution.shield_from_termination()
program = '''
import os, signal
signal.pthread_sigmask(signal.SIG_SETMASK, ())  # as Apptainer's starter
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGUSR1, lambda *_: print("caught"))
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
    os.kill(os.getpid(), number)
print("alive")
'''
subprocess.run([sys.executable, "-c", program], check=True)
"""


def test_what_is_shielded_outlives_termination_whatever_it_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHIELDED],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout == "caught\nalive\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_path_of_a_filter_ends_in_a_return(machine: str) -> None:
    for program in (
        emulation.kill_of_one(machine),
        emulation.fixed_dispositions(machine, TERMINATIONS),
        emulation.root_emulation(machine),
    ):
        code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
        assert code[-1][0] == 0x06
        for at, (operation, if_true, if_false, _) in enumerate(code):
            if operation == 0x15:
                assert max(at + 1 + if_true, at + 1 + if_false) < len(code)
