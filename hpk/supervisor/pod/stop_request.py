"""What the kubelet and the control plane leave on the disk for a pod without a channel."""

from __future__ import annotations

import json
import os
from typing import Optional

from hpk.durable import read_file
from hpk.model import codec, frames
from hpk.model.errors import ParseError
from hpk.model.frozen import dataclass
from hpk.supervisor.base.job_log import log


@dataclass(frozen=True)
class Found:
    """What one look has seen.

    :param stop: the Stop that the kubelet left, None where there is none.
    :param heartbeat: tells one state of the heartbeat file from another; None where there is no
        file.
    """

    stop: Optional[frames.Stop]
    heartbeat: Optional[tuple[int, int]]


def look(stop_path: str, heartbeat_path: str) -> Found:
    """Look at both.

    :raises OSError: the shared file system does not say.
    """
    # A network file system remembers for a minute that a name was not there; the directory is asked
    # for its entries, so that it forgets.
    os.listdir(os.path.dirname(stop_path))
    try:
        info = os.stat(heartbeat_path)
        beat: Optional[tuple[int, int]] = (info.st_ino, info.st_mtime_ns)
    except FileNotFoundError:
        beat = None
    return Found(read_stop_request(stop_path), beat)


def read_stop_request(path: str) -> Optional[frames.Stop]:
    """The Stop frame in the file, None where there is none.

    :raises OSError: as `look` does.
    """
    try:
        data = json.loads(read_file(path, 65536))
        stop: frames.Stop = codec.decode(frames.Stop, data)
    except FileNotFoundError:
        return None
    except (ValueError, ParseError) as error:
        log("not a stop request", path=path, error=error)
        return None
    return stop
