"""What the supervisor asks of a container runtime: argv that makes a container and holds it open.

The payload is always the supervisor's own pause program; the Pod's command enters afterwards. So no
runtime ever sees the Pod's argv or environment. Nothing here spawns or touches the disk.
"""

from __future__ import annotations

from typing import Optional, Protocol

from hpk.model.frozen import dataclass

PAUSE_PATH = "/.hpk/pause"
"""Where the pause program is shown inside every container."""


@dataclass(frozen=True)
class NodeFacts:
    """What was found on the node that runs the job.

    :param programs: absolute paths by program name; absent where there is none.
    :param has_fuse: /dev/fuse may be opened.
    :param has_nvidia: the node has NVIDIA devices; has_amd AMD's.
    :param has_cgroup2: /sys/fs/cgroup is the pure version 2.
    :param kernel: its version, (major, minor); (0, 0) where that is not known.
    """

    programs: tuple[tuple[str, str], ...]
    has_fuse: bool
    has_nvidia: bool
    has_amd: bool
    has_cgroup2: bool = True
    kernel: tuple[int, int] = (0, 0)

    def program(self, name: str) -> Optional[str]:
        """Absolute path of a program, None where the node has none."""
        return dict(self.programs).get(name)


@dataclass(frozen=True)
class BindMount:
    """A file or directory of the node inside the container. Paths are absolute."""

    source: str
    target: str
    read_only: bool


def mount_option(mount: BindMount) -> str:
    """The value of --mount: one CSV record, so that commas and quotes in a path stay its own."""
    fields = ["type=bind", f"source={mount.source}", f"destination={mount.target}"]
    if mount.read_only:
        fields.append("ro")
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields)


@dataclass(frozen=True)
class HoldRequest:
    """A container to make and hold open.

    :param image_path: the converted image on a file system this node sees.
    :param scratch: an empty directory on node-local disk for what the container writes.
    :param mounts: PAUSE_PATH is among them.
    :param gpus: whether the container asked for GPUs.
    :param image_offset: where its squashfs begins in the file, in bytes; None for a directory.
    :param uid: who the container is; gid alike. Of use to a runtime that maps users itself.
    :param read_only: nothing can be written but through ``mounts`` and below /dev.
    """

    image_path: str
    scratch: str
    mounts: tuple[BindMount, ...]
    gpus: bool
    image_offset: Optional[int] = None
    uid: int = 0
    gid: int = 0
    read_only: bool = False


@dataclass(frozen=True)
class Holder:
    """How to hold a container whose runtime only starts it and leaves.

    The supervisor shows the image at ``image_root``, runs the runtime's argv to its end, and finds
    the pause program by ``pid_file``. Everything happens as root of a user namespace that maps the
    job's user alone.

    :param image_path: the file, or the directory that is bound to ``image_root``.
    :param image_argv: a program that shows the file at ``image_root``; empty for a directory.
    :param image_mounts: it serves a mount until it is killed; else it unpacks and ends.
    """

    image_path: str
    image_root: str
    image_argv: tuple[str, ...]
    image_mounts: bool
    pid_file: str


class Runtime(Protocol):
    """A container runtime."""

    name: str
    programs: tuple[str, ...]
    """Programs to look for on the node."""
    wants_image_offset: bool
    """It cannot open an image file by itself: HoldRequest.image_offset is to be set."""

    longest_directory: Optional[int]
    """Bytes of the longest path of a directory that it can work in; None: any that Linux takes."""

    def unusable(self, facts: NodeFacts) -> str:
        """Why this node cannot run it, with a remedy; "" where it can."""

    def hold_argv(self, facts: NodeFacts, request: HoldRequest) -> tuple[str, ...]:
        """argv that makes the container and runs PAUSE_PATH in it.

        :raises PermanentError: it cannot make one that is as the request says.
        """

    def holder(self, facts: NodeFacts, request: HoldRequest) -> Optional[Holder]:
        """None where the program of hold_argv stays as long as its payload, and where the
        supervisor is to give it the user namespace of the uid the container asks for."""

    def environment(self, work_dir: str) -> tuple[tuple[str, str], ...]:
        """The runtime's own variables; what it writes goes under ``work_dir``."""

    def files(self, facts: NodeFacts, work_dir: str) -> tuple[tuple[str, str], ...]:
        """Configuration it reads, each (absolute path, text), written before it is started."""
