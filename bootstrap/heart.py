"""The heartbeat of the lock's holder, and the fence that stops it when the heartbeat stays out.

Both are threads: a stalled file system may hold up everything else, the event loop included, and
just then the fence must fall. It falls before anybody elsewhere may take the lock (lock.STALE_S).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bootstrap import lock
from bootstrap.lock import Holder
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)

_TICK_S = 0.5
_LONGEST_TICK_S = 2.0
"""More than this between two ticks, and it was we who stood still, not the file system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Why and when a holder had to stop.

    :param silent_since_s: Unix seconds of the last heartbeat that was written.
    """

    why: str
    silent_since_s: float


class Heart:
    """Beats for one generation until it is stopped or fenced off.

    :param on_beat: called after each heartbeat, in a thread.
    :param on_fence: called once, in a thread, when the holder must stop at once.
    """

    def __init__(
        self,
        paths: HpkPaths,
        holder: Holder,
        *,
        on_beat: Callable[[], None],
        on_fence: Callable[[Fence], None],
    ) -> None:
        self._paths = paths
        self._holder = holder
        self._on_beat = on_beat
        self._on_fence = on_fence
        self._stopped = threading.Event()
        self._guard = threading.Lock()
        self._fenced = False
        self._silent_s = 0.0
        self._silent_since_s = time.time()
        self._trouble = f"the file system of {paths.home} does not answer"
        # Daemons: a thread that the file system holds must not hold the process at its end.
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._watching = threading.Thread(target=self._watch, name="fence", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._beating.start()
        self._watching.start()

    def stop(self) -> None:
        """Beat no more; returns at once."""
        self._stopped.set()

    @property
    def is_held_up(self) -> bool:
        """Whether the file system still holds the heartbeat that was last begun."""
        return self._beating.is_alive()

    def _beat(self) -> None:
        sequence = 0
        while not self._stopped.is_set():
            sequence += 1
            try:
                ours = lock.beat(self._paths, self._holder, sequence)
            except OSError as error:
                log.warning("the heartbeat cannot be written: %s", error)
                self._trouble = f"the heartbeat could not be written: {error}"
            else:
                if not ours:
                    self._fence("another control plane is in force")
                    return
                with self._guard:
                    self._silent_s, self._silent_since_s = 0.0, time.time()
                if not self._stopped.is_set():
                    self._on_beat()
            self._stopped.wait(lock.BEAT_S)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(_TICK_S):
            now = time.monotonic()
            with self._guard:
                self._silent_s += min(now - last, _LONGEST_TICK_S)
                late = self._silent_s > lock.SELF_FENCE_S
            last = now
            if late:
                self._fence(self._trouble)

    def _fence(self, why: str) -> None:
        with self._guard:
            if self._fenced:
                return
            self._fenced = True
        self._stopped.set()
        self._on_fence(Fence(why=why, silent_since_s=self._silent_since_s))
