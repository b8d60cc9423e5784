"""What the supervisor asks of a container runtime: argv that makes a container and holds it open.

The payload is always the supervisor's own pause program; the Pod's command enters afterwards. So no
runtime ever sees the Pod's argv or environment. Nothing here spawns or touches the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

PAUSE_PATH = "/.hpk/pause"
"""Where the pause program is shown inside every container."""


@dataclass(frozen=True)
class NodeFacts:
    """What was found on the node that runs the job.

    :param programs: absolute paths by program name; absent where there is none.
    :param has_fuse: /dev/fuse may be opened.
    :param has_nvidia: the node has NVIDIA devices; has_amd AMD's.
    """

    programs: tuple[tuple[str, str], ...]
    has_fuse: bool
    has_nvidia: bool
    has_amd: bool

    def program(self, name: str) -> Optional[str]:
        """Absolute path of a program, None where the node has none."""
        return dict(self.programs).get(name)


@dataclass(frozen=True)
class BindMount:
    """A file or directory of the node inside the container. Paths are absolute."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class HoldRequest:
    """A container to make and hold open.

    :param image_path: the converted image on a file system this node sees.
    :param scratch: an empty directory on node-local disk for what the container writes.
    :param mounts: PAUSE_PATH is among them.
    :param gpus: whether the container asked for GPUs.
    """

    image_path: str
    scratch: str
    mounts: tuple[BindMount, ...]
    gpus: bool


class Runtime(Protocol):
    """A container runtime."""

    name: str
    programs: tuple[str, ...]
    """Programs to look for on the node."""

    def unusable(self, facts: NodeFacts) -> str:
        """Why this node cannot run it, with a remedy; "" where it can."""

    def hold_argv(self, facts: NodeFacts, request: HoldRequest) -> tuple[str, ...]:
        """argv that makes the container and runs PAUSE_PATH in it."""

    def environment(self, work_dir: str) -> tuple[tuple[str, str], ...]:
        """The runtime's own variables; what it writes goes under ``work_dir``."""
