"""Becomes a host: makes its namespaces and its root file system, then holds them.

Reads a JSON object from standard input and is started inside the host's cgroups (enter.sh). Ends
when the host stands; what stays is the host's process 1, outside of everything this machine sees
except by its cgroup. Runs on the standard library alone, for inside the new root there is nothing
of the checkout.

    name   host name
    argv0  what process 1 calls itself
    root   mount point of the new root; "" for namespaces without a file system of their own
    leaf   cgroup2 directory process 1 moves to once its cgroup namespace is made
    steps  see bootstrap/lab/rootfs.py; paths are inside the new root
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

_CLONE_NEWNS, _CLONE_NEWCGROUP, _CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
_CLONE_NEWIPC, _CLONE_NEWPID, _CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
_MS_REC, _MS_PRIVATE, _MS_SHARED = 1 << 14, 1 << 18, 1 << 20
_MNT_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_HOLD = "/usr/bin/sleep"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
        ),
        f"mount {source} on {target}",
    )


def _take(root: str, step: list[Any]) -> None:
    """Take one step of the plan."""

    def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
        _mount(source, root + target, kind, flags, data)

    def make_dir(path: str, mode: int, uid: int, gid: int) -> None:
        Path(root + path).mkdir(exist_ok=True, parents=True)
        os.chown(root + path, uid, gid)
        Path(root + path).chmod(mode)

    def link(target: str, path: str) -> None:
        Path(root + path).symlink_to(target)

    def device(path: str, mode: int, major: int, minor: int) -> None:
        os.mknod(root + path, 0o020000 | mode, os.makedev(major, minor))
        Path(root + path).chmod(mode)

    def file(path: str, text: str, mode: int) -> None:
        Path(root + path).write_text(text)
        Path(root + path).chmod(mode)

    takers: dict[str, Callable[..., None]] = {
        "mount": mount,
        "dir": make_dir,
        "link": link,
        "device": device,
        "file": file,
    }
    takers[step[0]](*step[1:])


def _enter_new_root(root: str, steps: list[list[Any]]) -> None:
    # Nothing mounted from here on may show up in the machine's own mount namespace.
    _mount("", "/", "", _MS_REC | _MS_PRIVATE, "")
    _mount("root", root, "tmpfs", 0, "mode=755")
    for step in steps:
        _take(root, step)
    old = f"{root}/.old"
    Path(old).mkdir()
    number = _PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(number, root.encode(), old.encode()), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/.old", _MNT_DETACH), "umount the machine's root")
    Path("/.old").rmdir()
    # Within the host mounts propagate, as on any machine that systemd started.
    _mount("", "/", "", _MS_REC | _MS_SHARED, "")


def _hold(argv0: str, ready: int) -> NoReturn:
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    # The kernel reaps the children of a process that ignores their end, orphans included.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.set_inheritable(ready, False)
    os.write(ready, b"ready")
    os.execve(_HOLD, [argv0, "infinity"], {})  # noqa: S606


def _become_host(plan: dict[str, Any], ready: int) -> NoReturn:
    try:
        if plan["leaf"]:
            (Path(plan["leaf"]) / "cgroup.procs").write_text("0")
        os.umask(0o022)
        if plan["root"]:
            _enter_new_root(plan["root"], plan["steps"])
        name = plan["name"].encode()
        _check(_libc.sethostname(name, len(name)), "sethostname")
        _hold(plan["argv0"], ready)
    except BaseException as error:
        os.write(ready, str(error).encode()[:4000])
        os._exit(1)


def main() -> int:
    """Make the host described on standard input; 0 when it stands."""
    plan = json.load(sys.stdin)
    flags = _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET | _CLONE_NEWCGROUP
    if plan["root"]:
        flags |= _CLONE_NEWNS
    _check(_libc.unshare(flags), "unshare")
    answer, ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        _become_host(plan, ready)
    os.close(ready)
    with os.fdopen(answer, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    if text == "ready":
        return 0
    print(f"{plan['name']}: {text or 'died while it was being made'}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
