"""What a program may do in a container, entered as podinit enters one: real namespaces, no image.

A script of root of a user namespace plays podinit; what the runtime leaves, a process in namespaces
below with a directory mounted read-only, is unshare's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpk.model.rights import CAPABILITIES, DEFAULT_CAPABILITIES
from hpk.supervisor.process.capabilities import capabilities_to_drop
from tests.supervisor_bench import userns_works

pytestmark = pytest.mark.skipif(not userns_works(), reason="this machine allows no user namespaces")
ROOT = Path(__file__).parents[2]
ADMIN = (*DEFAULT_CAPABILITIES, "SYS_ADMIN")
ASKED = {
    "default": {},
    "admin": {"capabilities": ADMIN},
    "nothing": {"capabilities": (), "can_gain": False},
    "privileged": {"capabilities": CAPABILITIES, "is_filtered": False},
    "unconfined": {"is_filtered": False},
    "user": {"capabilities": ("SETGID", "SETUID", "SETFCAP")},
    "setuid": {"capabilities": ("SETGID", "SETUID")},
}

ENTER = """
import json, os, subprocess, sys
from hpk.model import codec
from hpk.model.rights import Rights
from hpk.supervisor.base import linux
from hpk.supervisor.process.enter import Namespaces
from hpk.supervisor.process.pod_messages import Run
from hpk.supervisor.process.programs import start_program
frozen, uid, shares, asked, *scripts = sys.argv[1:]
linux.become_subreaper()
hold = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && echo ok && read -r _'
pause = subprocess.Popen(
    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", hold, "sh", frozen],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
assert pause.stdout.readline() == b"ok\\n"
enter = Namespaces(pause.pid, int(uid), int(uid))
rights = codec.loads(Rights, asked)
answers = []
for number, script in enumerate(scripts):
    out_read, out_write = os.pipe()
    run = Run(number, 1, ("sh", "-c", script, "sh", frozen), (("PATH", os.environ["PATH"]),), "/",
        rights=rights, emulates_root=uid == "0", shares_processes=shares == "yes")
    pid, errors = start_program(run, enter, (0, out_write, out_write))
    if enter.beginning is not None:
        while not enter.beginning.hear():
            pass
        enter.settle()
    os.close(out_write)
    with os.fdopen(errors) as told, os.fdopen(out_read) as said:
        if number == 0 and len(scripts) > 1:
            answers.append(said.readline())  # it stays, for the others to join
            continue
        answers.append(told.read() + said.read())
enter.kill_programs()
enter.close()
pause.stdin.close()
pause.wait()
print(json.dumps(answers))
"""
STAY = "echo here; exec sleep 1000"
STATUS = "exec cat /proc/self/status"
REMOUNT = """
exec 2>&1
mount -o remount,rw,bind "$1" && echo remounted
umount "$1" && echo unmounted
umount -l "$1" && echo detached
unshare --user --map-root-user --mount mount -o remount,rw,bind "$1" && echo remounted below
unshare --user --map-root-user --mount umount "$1" && echo unmounted below
echo written > "$1/file" && echo written
true
"""


def enter(
    frozen: Path, uid: int, rights: str, *scripts: str, shares_processes: bool = False
) -> list[str]:
    """What each program printed, and why it could not be started."""
    argv = [str(frozen), str(uid), "yes" if shares_processes else "no", json.dumps(ASKED[rights])]
    done = subprocess.run(
        ["unshare", "-Urpf", "--mount-proc", sys.executable, "-c", ENTER, *argv, *scripts],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """A directory that is mounted read-only where the programs run."""
    path = tmp_path / "fro zen"
    path.mkdir()
    (path / "file").write_text("given\n")
    return path


def status(text: str, name: str) -> int:
    (found,) = re.findall(rf"^{name}:\s*(\w+)$", text, re.MULTILINE)
    return int(found, 16)


@pytest.mark.parametrize("shares_processes", [False, True])
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("rights", ["default", "admin", "nothing", "privileged", "unconfined"])
def test_what_is_mounted_read_only_stays_so(
    frozen: Path, uid: int, rights: str, shares_processes: bool
) -> None:
    """For the program itself, and for one that comes later (a probe, a hook)."""
    (alone,) = enter(frozen, uid, rights, REMOUNT, shares_processes=shares_processes)
    _, later = enter(frozen, uid, rights, STAY, REMOUNT, shares_processes=shares_processes)
    for said in (alone, later):
        for word in ("remounted", "unmounted", "detached", "written\n"):
            assert word not in said
        assert "Read-only file system" in said
    assert (frozen / "file").read_text() == "given\n"


@pytest.mark.parametrize(
    ("rights", "kept"),
    [
        ("default", DEFAULT_CAPABILITIES),
        ("admin", ADMIN),
        ("nothing", ()),
        ("privileged", CAPABILITIES),
    ],
)
def test_root_has_its_capabilities_and_others_none(
    frozen: Path, rights: str, kept: tuple[str, ...]
) -> None:
    mask = sum(1 << CAPABILITIES.index(name) for name in kept)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    mask &= (1 << last + 1) - 1
    for said in (enter(frozen, 0, rights, STATUS)[0], enter(frozen, 0, rights, STAY, STATUS)[1]):
        assert [status(said, f"Cap{part}") for part in ("Prm", "Eff", "Bnd", "Inh", "Amb")] == [
            *(mask, mask, mask, 0, 0)
        ]
    (said,) = enter(frozen, 1000, rights, STATUS)
    assert [status(said, f"Cap{part}") for part in ("Prm", "Eff", "Bnd", "Inh", "Amb")] == [
        *(0, 0, mask, 0, 0)
    ]


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize(
    ("rights", "filters"), [("default", 1), ("unconfined", 0), ("privileged", 0), ("nothing", 1)]
)
def test_filters_and_the_gain_of_privileges(
    frozen: Path, uid: int, rights: str, filters: int
) -> None:
    (said,) = enter(frozen, uid, rights, STATUS)
    assert status(said, "Seccomp_filters") == filters + (uid == 0)  # root emulation
    assert status(said, "NoNewPrivs") == (rights == "nothing")


def test_who_may_become_another_user_needs_setfcap(frozen: Path) -> None:
    """As what stands for gosu does it; so planning adds it."""
    become = "unshare --user --map-root-user id -u 2>&1"
    assert enter(frozen, 0, "user", become) == ["0\n"]
    assert "Operation not permitted" in enter(frozen, 0, "setuid", become)[0]


CALLS = """exec python3 -c '
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for number in (425, 323, 321, 161):
    result = libc.syscall(number, 0, 0, 0, 0)
    print(errno.errorcode.get(ctypes.get_errno(), "none") if result < 0 else "done")
'"""
"""io_uring_setup, userfaultfd, bpf, chroot; with arguments that the kernel answers otherwise."""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are of x86_64")
@pytest.mark.parametrize(
    ("rights", "answers"),
    [
        ("default", ["ENOSYS", "EPERM", "EPERM", "EFAULT"]),
        ("nothing", ["ENOSYS", "EPERM", "EPERM", "EPERM"]),
    ],
)
def test_what_the_default_profile_leaves_out(frozen: Path, rights: str, answers: list[str]) -> None:
    assert enter(frozen, 0, rights, CALLS)[0].split() == answers
    assert enter(frozen, 0, "unconfined", CALLS)[0].split()[0] in ("EFAULT", "EPERM", "ENOSYS")


MOUNT = 'mount -t tmpfs none "$1" && grep -c " tmpfs " /proc/self/mounts >&2; cat "$1/file"'


def test_who_may_mount_changes_the_containers_mounts_for_all_its_programs(frozen: Path) -> None:
    mounting = f'mount -t tmpfs none "$1" && echo hidden > "$1/file"; {STAY}'
    _, later = enter(frozen, 0, "privileged", mounting, 'cat "$1/file"')
    assert later == "hidden\n"
    (refused,) = enter(frozen, 0, "default", 'mount -t tmpfs none "$1"; cat "$1/file"')
    assert "permission denied" in refused
    assert refused.endswith("given\n")


def test_programs_are_killed_wherever_they_went(frozen: Path) -> None:
    """One that has left the container's mount namespace is among them."""
    gone = "unshare --user --map-root-user --mount sleep 4711"
    script = f"({gone} &) ; until pgrep -f '^sleep 4711$' > /dev/null; do sleep 0.05; done; {STAY}"
    said = enter(frozen, 0, "unconfined", script, "pgrep -c -f '^sleep 4711$'")
    assert said[1] == "1\n"  # and podinit's namespace has ended: nothing held it up


def test_capabilities_that_we_have_no_name_for_go_too() -> None:
    assert capabilities_to_drop((), 3) == (0, 1, 2, 3)
    assert capabilities_to_drop(CAPABILITIES, 42) == (41, 42)
    assert 13 not in capabilities_to_drop(("NET_RAW",), 40)
