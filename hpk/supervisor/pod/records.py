"""The record on the disk: every change, synced, newest wins, in a thread of its own.

A slow shared file system delays the record, never the container. A record goes up the channel after
its write was tried: what the kubelet hears can normally be read again, and a full disk hides
nothing from a kubelet that can be told.
"""

from __future__ import annotations

import threading
from typing import Callable, Optional

from hpk.durable import write_atomically
from hpk.model import codec
from hpk.model.record import SupervisorRecord
from hpk.supervisor.base.job_log import log

_RETRY_S = 2.0


class RecordStore:
    """Writes records to one path.

    :param on_tried: called, from the thread, with each record whose write was tried.
    """

    def __init__(self, path: str, on_tried: Callable[[SupervisorRecord], None]) -> None:
        self._path = path
        self._on_tried = on_tried
        self._condition = threading.Condition()
        self._pending: Optional[SupervisorRecord] = None
        self._written_seq = 0
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def put(self, record: SupervisorRecord) -> None:
        """Write this record soon; one not yet written is skipped for it."""
        with self._condition:
            self._pending = record
            self._condition.notify_all()

    def wait_written(self, seq: int, timeout_s: float) -> bool:
        """Whether the record of this seq, or a newer one, is on the disk within the time."""
        with self._condition:
            return self._condition.wait_for(lambda: self._written_seq >= seq, timeout_s)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._pending is not None)
                record, self._pending = self._pending, None
            if record is None:
                continue
            try:
                write_atomically(self._path, codec.dumps(record))
            except OSError as error:
                log("cannot write the record, will try again", path=self._path, error=error)
                with self._condition:
                    self._pending = self._pending or record
                    self._condition.wait(_RETRY_S)
            else:
                with self._condition:
                    self._written_seq = record.seq
                    self._condition.notify_all()
            self._on_tried(record)
