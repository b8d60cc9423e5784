"""Whether emptyDirs stay within their sizeLimit: looked at now and then, by a thread of its own.

Walking a big volume takes its time, on a shared file system most of all. Source of the message:
kubernetes pkg/kubelet/eviction/eviction_manager.go (emptyDirLimitEviction).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Callable

from hpk.model.plan import EmptyDirVolume
from hpk.supervisor.base.job_log import log
from hpk.trees import stats_below

_EVERY_S = 10.0


def used_bytes(path: str) -> int:
    """What a directory takes on its file system, each file counted once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    # By descriptors: what a container puts in the place of a directory leads nowhere.
    for info in stats_below(path):
        if (info.st_dev, info.st_ino) not in seen:
            seen.add((info.st_dev, info.st_ino))
            total += info.st_blocks * 512
    return total


def quantity(count: int) -> str:
    """A number of bytes as Kubernetes writes it."""
    for shift, unit in ((40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")):
        if count and count % (1 << shift) == 0:
            return f"{count >> shift}{unit}"
    return str(count)


def watch_size_limits(
    volumes: Mapping[str, EmptyDirVolume], on_exceeded: Callable[[str], None]
) -> None:
    """Start watching.

    :param volumes: by the directory each is in.
    :param on_exceeded: called once, from the thread, with what to say.
    """
    limited = {p: v for p, v in volumes.items() if v.size_limit_bytes is not None}
    if limited:
        arguments = (limited, on_exceeded, threading.Event())
        threading.Thread(target=_watch, args=arguments, name="size limits", daemon=True).start()


def _watch(
    volumes: Mapping[str, EmptyDirVolume],
    on_exceeded: Callable[[str], None],
    never: threading.Event,
) -> None:
    troubled: set[str] = set()
    while not never.wait(_EVERY_S):
        for path, volume in volumes.items():
            limit = volume.size_limit_bytes or 0
            try:
                used = used_bytes(path)
            except Exception as error:  # of this look at this volume: there are others
                if path not in troubled:
                    troubled.add(path)
                    log("cannot look at a volume", volume=volume.name, error=repr(error))
                continue
            if used > limit:
                on_exceeded(
                    f'Usage of EmptyDir volume "{volume.name}" exceeds the limit '
                    f'"{quantity(limit)}".'
                )
                return
