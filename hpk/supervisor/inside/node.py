"""What this node has, and where in the job we are."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Mapping

from hpk.runtimes.base import NodeFacts

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def probe_node(programs: Iterable[str], directories: Iterable[str], path: str) -> NodeFacts:
    """Look for programs in ``directories``, then in ``path``, then where systems have them."""
    places = [*directories, *path.split(":"), *_SYSTEM_PATH.split(":")]
    found = []
    for name in programs:
        for place in places:
            candidate = os.path.join(place, name)
            if place.startswith("/") and os.access(candidate, os.X_OK):
                found.append((name, candidate))
                break
    return NodeFacts(
        programs=tuple(found),
        has_fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        has_nvidia=os.path.exists("/dev/nvidiactl"),
        has_amd=os.path.exists("/dev/kfd"),
        has_cgroup2=os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
        kernel=kernel_version(os.uname().release),
    )


def kernel_version(release: str) -> tuple[int, int]:
    """``6.1.0-18-amd64`` as (6, 1); (0, 0) where it reads otherwise."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def host_name(env: Mapping[str, str]) -> str:
    """Slurm's name of this node."""
    return env.get("SLURMD_NODENAME") or socket.gethostname()


def address_towards(address: str, fallback_name: str) -> str:
    """The address of ours that a peer sees; that of our name where there is no peer."""
    if address:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((address, 9))
                return str(probe.getsockname()[0])
        except (OSError, ValueError, TypeError):  # whatever a damaged endpoint.json says
            pass
    try:
        return socket.gethostbyname(fallback_name)
    except OSError:
        return "127.0.0.1"


def tool_environment(job_env: Mapping[str, str]) -> dict[str, str]:
    """The environment of programs the supervisor starts for itself: nothing of the user's shell."""
    kept = ("PATH", "USER", "LOGNAME", "LANG", "TZ", "SLURM_CONF")
    env = {name: job_env[name] for name in kept if name in job_env}
    env.setdefault("PATH", _SYSTEM_PATH)
    for place in _SYSTEM_PATH.split(":"):
        if place not in env["PATH"].split(":"):
            env["PATH"] += ":" + place
    return env
