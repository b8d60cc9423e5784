"""The stop file: how the kubelet stops a pod it has no channel to."""

from __future__ import annotations

import json
from typing import Optional

from hpk.durable import read_file
from hpk.model import codec, frames
from hpk.model.errors import ParseError
from hpk.supervisor.base.job_log import log


def read_stop_request(path: str) -> Optional[frames.Stop]:
    """The Stop that the kubelet left on the disk, None where there is none."""
    try:
        data = json.loads(read_file(path, 65536))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log("cannot read the stop request", path=path, error=error)
        return None
    try:
        stop: frames.Stop = codec.decode(frames.Stop, data)
    except ParseError as error:
        log("not a stop request", path=path, error=error)
        return None
    return stop
