"""What podinit or a keeper is told to open a container: the runtime's argv, environment, files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Optional

from hpk.durable import write_new
from hpk.model.errors import PermanentError
from hpk.model.frozen import dataclass
from hpk.model.sif import HEADER_BYTES, parse_header, primary_squashfs_offset
from hpk.runtimes.base import HoldRequest, NodeFacts, Runtime
from hpk.supervisor.process.places import (
    DIRECTORY,
    IMAGE,
    Mount,
    Places,
    needed_parts,
    plan_places,
)
from hpk.supervisor.process.pod_messages import Open

_SCRATCH = "overlay"


def image_offset(path: str) -> Optional[int]:
    """Where the squashfs begins in an image file, in bytes; None for a sandbox directory.

    :raises OSError: it cannot be read.
    :raises ParseError: it is no SIF file, or a damaged one.
    """
    if os.path.isdir(path):
        return None
    with open(path, "rb") as file:
        table = parse_header(file.read(HEADER_BYTES))
        file.seek(table.offset)
        return primary_squashfs_offset(file.read(table.size))


@dataclass(frozen=True)
class Wanted:
    """A container to open, as the Pod and this node have it.

    :param image_path: the image, on a file system this node sees.
    :param directory: the container's own, on node-local disk, for the runtime and what it writes.
    :param roots: directories of HPK's on this node; the first that the runtime can work with is
        where it sees what it is given.
    :param mounts: from the root downwards; PAUSE_PATH is among them.
    :param own: HPK's directories, which nobody is to see.
    """

    image_path: str
    directory: str
    roots: tuple[str, ...]
    mounts: tuple[Mount, ...]
    own: tuple[str, ...]
    gpus: bool
    uid: int
    gid: int
    read_only: bool


def open_command(
    number: int, runtime: Runtime, facts: NodeFacts, wanted: Wanted, *, env: Mapping[str, str]
) -> Open:
    """The command that opens a container; what its runtime reads is written.

    :raises OSError: the image cannot be read, or the disk is full.
    :raises ParseError: it is none.
    :raises PermanentError: the runtime cannot make one that is as it is wanted, or not here.
    :param env: of the runtime, without its own variables.
    """
    anchor = _anchor(runtime, wanted.roots)
    is_foreign = os.path.isdir(wanted.image_path)  # a file is no way to what lies beside it
    image = Mount(os.path.realpath(wanted.image_path), "/", False, is_foreign)
    placed, shown = plan_places(wanted.mounts, image, anchor)
    programs = [os.path.realpath(path) for _, path in facts.programs]
    request = HoldRequest(
        image_path=os.path.join(anchor, IMAGE),
        scratch=os.path.join(anchor, DIRECTORY, _SCRATCH),
        mounts=shown,
        gpus=wanted.gpus,
        image_offset=image_offset(wanted.image_path) if runtime.wants_image_offset else None,
        uid=wanted.uid,
        gid=wanted.gid,
        read_only=wanted.read_only,
    )
    holder = runtime.holder(facts, request)
    argv = runtime.hold_argv(facts, request)
    os.mkdir(os.path.join(wanted.directory, _SCRATCH), 0o700)
    for path, text in runtime.files(facts, wanted.directory):
        write_new(path, text.encode())
    own_variables = runtime.environment(os.path.join(anchor, DIRECTORY))
    return Open(
        id=number,
        argv=argv,
        env=tuple({**env, **dict(own_variables)}.items()),
        uid=wanted.uid,
        gid=wanted.gid,
        holder=holder,
        places=Places(
            anchor=anchor,
            directory=wanted.directory,
            placed=placed,
            own=wanted.own,
            needed=needed_parts(programs, wanted.own),
        ),
    )


def _anchor(runtime: Runtime, roots: tuple[str, ...]) -> str:
    limit = runtime.longest_directory
    for root in roots:
        if limit is None or len(os.fsencode(root)) <= limit:
            return root
    raise PermanentError(
        f"{runtime.name} cannot work in {roots[0]}: it takes no directory of more than {limit} "
        "bytes",
        remedy="have /dev/shm or a shorter TMPDIR there, or use the annotation runtime: apptainer",
    )
