"""What `hpk doctor` runs on a compute node. Standard library only; reports facts, judges nothing.

Lives in a Slurm job of its own and talks with the login node through files of one directory, which
is thereby tested: ``request.json`` is there, ``hello.json`` says what was found, then each
``ping-N.json`` is answered by a ``pong-N.json``. It ends when the directory goes, when nobody asks
any more, or at the request's time limit. It must parse on every Python 3, so that one that is too
old for HPK can say so: no syntax newer than 3.6.
"""

import ctypes
import errno
import fcntl
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, Tuple

_POLL_S = 0.02
_PROGRAM_TIMEOUT_S = 10
_CONNECT_TIMEOUT_S = 5
_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_LIMITS_OF_NAMESPACES = (
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/user/max_mnt_namespaces",
    "/proc/sys/user/max_pid_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
)


def main(directory: str) -> None:
    """Report, then answer until nobody asks."""
    with open(os.path.join(directory, "request.json"), encoding="utf-8") as file:
        request = json.load(file)
    deadline = time.monotonic() + request["limit_s"]
    facts = collect(request, directory)
    listener = listen(request, str(facts["address"]))
    facts["port"] = listener.getsockname()[1] if listener is not None else 0
    facts["to_login"] = knock(request)
    write(directory, "hello.json", facts)
    converse(directory, deadline)


def collect(request: Dict[str, Any], directory: str) -> Dict[str, Any]:
    """Everything this node can say by itself."""
    namespaces_step, namespaces_error = try_namespaces()
    places = [*request["runtime_path"], *os.environ.get("PATH", "").split(":")]
    places += _SYSTEM_PATH.split(":")
    return {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "address": own_address(request["address"]),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "hpk_python": output_of([request["python"], "-I", "-S", "-V"]),
        "kernel": os.uname().release,
        "has_cgroup2": os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        "fuse": fuse(),
        "namespaces_step": namespaces_step,
        "namespaces_error": namespaces_error,
        "namespace_limits": [
            {"name": path[len("/proc/sys/") :].replace("/", "."), "value": text_of(path)}
            for path in _LIMITS_OF_NAMESPACES
            if os.path.exists(path)
        ],
        "programs": programs(request["programs"], request["versions_of"], places),
        "mpi": output_of(["srun", "--mpi=list"]),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "nproc": resource.getrlimit(resource.RLIMIT_NPROC)[1],
        "scratch": scratch_dir(),
        "scratch_free_bytes": free_bytes(scratch_dir()),
        "mounts": text_of("/proc/self/mountinfo", 262144),
        "directory": os.path.realpath(directory),
    }


def text_of(path: str, limit: int = 4096) -> str:
    """The beginning of a file; "" where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(limit).strip()
    except OSError:
        return ""


def output_of(argv: List[str], **variables: str) -> str:
    """What a program prints; "" where it fails or takes too long."""
    try:
        done = subprocess.run(
            argv,
            check=False,
            env=dict(os.environ, **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PROGRAM_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout[:4096].decode(errors="replace").strip() if done.returncode == 0 else ""


def programs(names: List[str], versions_of: List[str], places: List[str]) -> List[Dict[str, str]]:
    """Where each program is, and what some of them say of their version."""
    found = []
    for name in names:
        for place in places:
            path = os.path.join(place, name)
            if place.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
                version = version_of(path) if name in versions_of else ""
                found.append({"name": name, "path": path, "version": version})
                break
    return found


def version_of(path: str) -> str:
    """A program's version; even that makes podman leave directories, so they get a place."""
    try:
        place = tempfile.mkdtemp(prefix="hpk-doctor-", dir=scratch_dir())
    except OSError:
        return output_of([path, "--version"])  # where nobody can write, nothing is left either
    try:
        return output_of([path, "--version"], HOME=place, TMPDIR=place, XDG_RUNTIME_DIR=place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def fuse() -> Dict[str, Any]:
    """/dev/fuse: its mode, and why it cannot be opened."""
    try:
        mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    except OSError as error:
        return {"mode": 0, "error": os.strerror(error.errno or 0)}
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return {"mode": mode, "error": os.strerror(error.errno or 0)}
    return {"mode": mode, "error": ""}


def try_namespaces() -> Tuple[str, str]:
    """Make a user namespace as the supervisor does; the step that fails and why, or two ""."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        step, error = "fork", ""
        try:
            for name, act in namespace_steps():
                step = name
                act()
            step = ""
        except OSError as failed:
            error = os.strerror(failed.errno or 0)
        finally:
            os.write(writing, json.dumps([step, error]).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    step, error = json.loads(said.decode()) if said else ("fork", "the child died")
    return str(step), str(error)


def namespace_steps() -> List[Tuple[str, Callable[[], None]]]:
    """What makes a container's namespaces, in order."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()

    def checked(result: int) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), "")

    def put(path: str, text: str) -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    everything = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWPID
    return [
        ("unshare", lambda: checked(libc.unshare(everything))),
        ("setgroups", lambda: put("/proc/self/setgroups", "deny")),
        ("uid_map", lambda: put("/proc/self/uid_map", "0 {} 1".format(uid))),
        ("gid_map", lambda: put("/proc/self/gid_map", "0 {} 1".format(gid))),
        ("private", lambda: checked(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))),
        ("tmpfs", lambda: checked(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))),
    ]


def scratch_dir() -> str:
    """Where the supervisor keeps what is node-local."""
    return os.environ.get("TMPDIR") or "/tmp"


def free_bytes(path: str) -> int:
    """What a user may still write there; -1 where that cannot be told."""
    try:
        info = os.statvfs(path)
    except OSError:
        return -1
    return info.f_bavail * info.f_frsize


def own_address(peer: str) -> str:
    """The address of ours that the peer sees; "" where there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return ""


def listen(request: Dict[str, Any], address: str) -> Any:
    """A port that answers whoever knows the token, from now until we end; None where none is."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((address, 0))
        listener.listen(4)
    except OSError:
        listener.close()
        return None
    threading.Thread(target=serve, args=(listener, request), daemon=True).start()
    return listener


def serve(listener: Any, request: Dict[str, Any]) -> None:
    """Answer ``ask_node`` by ``tell_login``, everything else by nothing."""
    while True:
        try:
            peer = listener.accept()[0]
        except OSError:
            return
        with peer:
            try:
                peer.settimeout(_CONNECT_TIMEOUT_S)
                if peer.recv(256).decode("ascii", "replace").strip() == request["ask_node"]:
                    peer.sendall(request["tell_login"].encode() + b"\n")
            except OSError:
                continue


def knock(request: Dict[str, Any]) -> str:
    """Dial the login node as the supervisor will; "" where it answers, else why not."""
    where = (request["address"], request["port"])
    try:
        with socket.create_connection(where, timeout=_CONNECT_TIMEOUT_S) as peer:
            peer.sendall(request["ask_login"].encode() + b"\n")
            answer = peer.recv(256).decode("ascii", "replace").strip()
    except socket.timeout:
        return "no answer within {} s".format(_CONNECT_TIMEOUT_S)
    except OSError as error:
        return error.strerror or str(error)
    return "" if answer == request["tell_node"] else "somebody else answers there"


def converse(directory: str, deadline: float) -> None:
    """Answer three times: lock and link refused, lock granted and kept, good-bye."""
    lock = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CLOEXEC)
    mine = os.path.join(directory, "mine")
    with open(mine, "w", encoding="ascii"):
        pass
    for number in (1, 2, 3):
        if not wait_for(directory, "ping-{}.json".format(number), deadline):
            return
        pong = {"time_s": time.time(), "locked": "", "linked": ""}  # type: Dict[str, Any]
        if number < 3:
            pong["locked"] = attempt(lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB))
        if number == 1:
            pong["linked"] = attempt(lambda: os.link(mine, os.path.join(directory, "claim-login")))
            attempt(lambda: os.link(mine, os.path.join(directory, "claim-node")))
        write(directory, "pong-{}.json".format(number), pong)


def attempt(act: Callable[[], Any]) -> str:
    """``done``, or the error's name (``EEXIST``)."""
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "unknown")
    return "done"


def wait_for(directory: str, name: str, deadline: float) -> bool:
    """Whether the file came before the deadline, or before its directory went."""
    while time.monotonic() < deadline:
        try:
            os.close(os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            if not os.path.isdir(directory):
                return False
            time.sleep(_POLL_S)
        else:
            return True
    return False


def write(directory: str, name: str, value: Dict[str, Any]) -> None:
    """Put a file there whole."""
    temporary = os.path.join(directory, ".{}.{}".format(name, os.getpid()))
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.join(directory, name))


if __name__ == "__main__":
    main(sys.argv[1])
