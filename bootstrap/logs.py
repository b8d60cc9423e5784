"""The logs of the control plane: where its own lies, and how each is kept small."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hpk.statefs import HpkPaths

_LOG_BYTES = 16 << 20
_LOG_COPIES = 2


def control_plane_log(paths: HpkPaths) -> Path:
    """The supervising process' own log, where it runs in the background."""
    return paths.logs / "control-plane.log"


def rotate(path: Path, *, limit_bytes: int = _LOG_BYTES) -> None:
    """Keep a log small: its writer holds it open for appending, so it is copied and cut."""
    if not path.exists() or path.stat().st_size < limit_bytes:
        return
    for number in range(_LOG_COPIES, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    path.with_name(f"{path.name}.1").chmod(0o600)
    os.truncate(path, 0)
