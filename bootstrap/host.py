"""What must be known of this host: who it is, how other nodes reach it, which ports are free."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import random
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from hpk.durable import private_directory, write_atomically
from hpk.model.errors import PermanentError

_LOWEST_PORT = 20000
_HIGHEST_PORT = 32000  # below the kernel's own ephemeral ports, which come and go
_TRIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """This host and this life of it: a pid means something only within one of these.

    :param pid_namespace: containers and jobs may see other pids under the same host name.
    """

    host: str
    boot_id: str
    pid_namespace: str

    @classmethod
    def here(cls) -> Identity:
        """The identity of where we run."""
        return cls(
            host=socket.gethostname(),
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            pid_namespace=str(Path("/proc/self/ns/pid").readlink()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """TCP ports of one control plane. The first three listen on the host's address, the others
    on the loopback alone."""

    api: int
    kubelet: int
    channel: int
    etcd: int
    etcd_peer: int
    dns: int


_ON_ADDRESS = ("api", "kubelet", "channel")


def find_address(configured: str) -> str:
    """The IPv4 address of this host that other nodes reach.

    :param configured: the site's or user's choice; "" to look for one.
    :raises PermanentError: there is none, or the configured one is not of this host.
    """
    candidates = [configured] if configured else _own_addresses()
    for candidate in candidates:
        if _is_local(candidate):
            return candidate
    what = configured or f"an address of {socket.gethostname()} that other nodes reach"
    raise PermanentError(
        f"{what} is not to be found on this host",
        remedy="set address in [control-plane] of config.toml to one of `ip -4 addr`",
    )


def _own_addresses() -> list[str]:
    found: list[str] = []
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
        found += [str(info[4][0]) for info in infos]
    except OSError:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks the routing table
            found.append(str(probe.getsockname()[0]))
        except OSError:
            pass
    return [address for address in dict.fromkeys(found) if not address.startswith(("127.", "0."))]


def _is_local(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def is_free(address: str, port: int) -> bool:
    """Whether we could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Go's servers do: the remains of closed connections do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_ports(path: Path, address: str) -> Ports:
    """The ports of this home: those of the last time, except where a stranger took one.

    :param path: where they are kept.
    """
    kept = _read_ports(path)
    chosen: dict[str, int] = {}
    for name in Ports.__dataclass_fields__:
        where = address if name in _ON_ADDRESS else "127.0.0.1"
        port = kept.get(name, 0)
        taken = set(chosen.values())
        if port in taken or port == 0 or not is_free(where, port):
            port = _choose(where, taken | set(kept.values()))
        chosen[name] = port
    ports = Ports(**chosen)
    if chosen != kept:
        write_atomically(path, json.dumps(asdict(ports)) + "\n")
    return ports


def _read_ports(path: Path) -> dict[str, int]:
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {
        name: data[name]
        for name in Ports.__dataclass_fields__
        if isinstance(data.get(name), int) and 0 < data[name] < 65536
    }


def free_port(address: str) -> int:
    """A free port of this host, of those a control plane would choose from.

    :raises PermanentError: none was found.
    """
    return _choose(address, set())


def _choose(address: str, taken: set[int]) -> int:
    generator = random.SystemRandom()
    for _ in range(_TRIES):
        port = generator.randrange(_LOWEST_PORT, _HIGHEST_PORT)
        if port not in taken and is_free(address, port):
            return port
    raise PermanentError(
        f"no free port on {address} between {_LOWEST_PORT} and {_HIGHEST_PORT}",
        remedy="try another login node",
    )


def probe_data_directory(path: Path) -> None:
    """Check that etcd's store (bbolt) can work here: it needs flock and a shared mmap.

    :raises PermanentError: the file system offers less.
    """
    private_directory(path)
    probe = path / f".probe-{os.getpid()}"
    fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ) as view:
            os.pwrite(fd, b"hpk", 0)
            os.fsync(fd)
            works = view[:3] == b"hpk"
    except (OSError, ValueError) as error:
        raise _unfit(path, str(error)) from error
    finally:
        os.close(fd)
        probe.unlink(missing_ok=True)
    if not works:
        raise _unfit(path, "a shared mmap does not show what was written")


def _unfit(path: Path, why: str) -> PermanentError:
    return PermanentError(
        f"{path}: etcd cannot keep its data here ({why})",
        remedy="set etcd-data in [control-plane] of config.toml to a directory on a local disk",
    )
