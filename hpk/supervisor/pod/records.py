"""The record on the disk: every change, synced, newest wins, through the door to the shared files.

A slow shared file system delays the record, never the container. A record goes up the channel after
its write was tried: what the kubelet hears can normally be read again, and a full disk hides
nothing from a kubelet that can be told; nor does one that hangs, for longer than a moment.
"""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

from hpk.durable import write_atomically
from hpk.model import codec
from hpk.model.record import SupervisorRecord
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.shared_files import SharedFiles

_RETRY_S = 2.0
_TELL_S = 2.0
"""How long the kubelet waits for what is being written."""


class RecordStore:
    """Writes records to one path; the loop's thread alone calls it.

    :param tell: told of each record whose write was tried, from any thread.
    :param wake: called, from another thread, when a write has ended.
    """

    def __init__(
        self,
        path: str,
        files: SharedFiles,
        tell: Callable[[SupervisorRecord], None],
        wake: Callable[[], None],
    ) -> None:
        self._path = path
        self._files = files
        self._tell = tell
        self._wake = wake
        self._lock = threading.Lock()
        self._newest: Optional[SupervisorRecord] = None
        self._untold_since_mono_s: Optional[float] = None
        self._retry_mono_s: Optional[float] = None
        self._is_failing = False
        self.written_seq = 0
        """Of the newest that is on the disk."""
        self.has_place = True
        """Whether there is a directory for it; the kubelet removes a deleted Pod's."""

    def put(self, record: SupervisorRecord) -> None:
        """Write this record soon; one not yet written is skipped for it."""
        with self._lock:
            self._newest = record
            if self._untold_since_mono_s is None:
                self._untold_since_mono_s = time.monotonic()
        if self._retry_mono_s is None:
            self._files.put("record", self._write)

    @property
    def wake_mono_s(self) -> Optional[float]:
        """When `tick` wants to be called."""
        since, retry = self._untold_since_mono_s, self._retry_mono_s
        times = (retry, None if since is None else since + _TELL_S)
        return min((item for item in times if item is not None), default=None)

    def tick(self) -> None:
        """Try again what could not be written, and tell what has waited for its write too long."""
        now = time.monotonic()
        if self._retry_mono_s is not None and now >= self._retry_mono_s:
            self._retry_mono_s = None
            self._files.put("record", self._write)
        with self._lock:
            since, record = self._untold_since_mono_s, self._newest
            is_late = since is not None and now >= since + _TELL_S
            if is_late:
                self._untold_since_mono_s = None
        if is_late and record is not None:
            self._tell(record)

    def _write(self) -> None:
        with self._lock:
            record = self._newest
        if record is None:
            return
        try:
            write_atomically(self._path, codec.dumps(record))
        except OSError as error:
            if not self._is_failing:
                log("cannot write the record, will try again", path=self._path, error=error)
            self._is_failing = True
            self.has_place = not isinstance(error, FileNotFoundError)
            self._retry_mono_s = time.monotonic() + _RETRY_S
        else:
            self._is_failing, self.has_place = False, True
            self.written_seq = record.seq
        with self._lock:
            if self._newest is record:
                self._untold_since_mono_s = None
        self._tell(record)
        self._wake()
