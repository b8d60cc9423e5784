"""What podinit or a keeper is told to open a container: the runtime's argv, environment, files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Optional

from hpk.durable import write_new
from hpk.model.sif import HEADER_BYTES, parse_header, primary_squashfs_offset
from hpk.runtimes.base import HoldRequest, NodeFacts, Runtime
from hpk.supervisor.process.pod_messages import Open


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


def write_runtime_files(runtime: Runtime, facts: NodeFacts, work_dir: str) -> None:
    """The runtime's configuration for the job on this node."""
    for path, text in runtime.files(facts, work_dir):
        write_new(path, text.encode())


def open_command(
    number: int,
    runtime: Runtime,
    facts: NodeFacts,
    request: HoldRequest,
    *,
    env: Mapping[str, str],
) -> Open:
    """The command that opens a container.

    :raises OSError: the image cannot be read.
    :raises ParseError: it is none.
    :param env: of the runtime.
    """
    if runtime.wants_image_offset:
        request = replace(request, image_offset=image_offset(request.image_path))
    holder = runtime.holder(facts, request)
    return Open(
        id=number,
        argv=runtime.hold_argv(facts, request),
        env=tuple(env.items()),
        uid=request.uid,
        gid=request.gid,
        holder=holder,
    )
