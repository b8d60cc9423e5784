"""What a killed supervising process left running on this host."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from bootstrap.host import Identity
from bootstrap.processes import ProcessId
from bootstrap.state import ComponentState, read_state
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)


def end_remains(paths: HpkPaths) -> tuple[str, ...]:
    """End what a predecessor on this host left running, known by pid and start time. Blocks.

    :returns: their names.
    """
    state = read_state(paths)
    if state is None or state.identity != Identity.here():
        return ()
    ended = []
    for component in state.components:
        process = ProcessId(pid=component.pid, start_ticks=component.start_ticks)
        if component.pid and process.is_alive() and _is_ours(component):
            log.warning("ending %s, process %d, left behind", component.name, component.pid)
            process.end(grace_s=5)
            ended.append(component.name)
    return tuple(ended)


def _is_ours(component: ComponentState) -> bool:
    try:
        return Path(f"/proc/{component.pid}").stat().st_uid == os.geteuid()
    except OSError:
        return False
