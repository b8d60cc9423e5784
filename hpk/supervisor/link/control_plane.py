"""Where the control plane is: endpoint.json, or what it said when it could last be read."""

from __future__ import annotations

import time
from typing import Optional

from hpk.durable import read_file
from hpk.model import codec
from hpk.model.errors import HpkError
from hpk.model.settings import Endpoint
from hpk.supervisor.base.shared_files import SharedFiles

_READ_S = 2.0
_MAX_BYTES = 65536


class ControlPlane:
    """From any thread but the loop's, save `address`."""

    def __init__(self, endpoint_path: str, files: SharedFiles) -> None:
        self._path = endpoint_path
        self._files = files
        self._known: Optional[Endpoint] = None
        self._read_mono_s = 0.0

    @property
    def address(self) -> str:
        """The host, as far as it is known; "" where it is not."""
        known = self._known
        return "" if known is None else known.address

    def endpoint(self, max_age_s: float = 0.0) -> Endpoint:
        """Where it says it is; where it was, while the shared file system does not answer.

        :param max_age_s: how old the answer may be.
        :raises OSError, ParseError: nobody knows.
        """
        known = self._known
        if known is not None and time.monotonic() - self._read_mono_s < max_age_s:
            return known
        try:
            text = self._files.wait(lambda: read_file(self._path, _MAX_BYTES), _READ_S)
            known = codec.loads(Endpoint, text)
        except (OSError, HpkError):
            if known is None:
                raise
            return known
        self._known, self._read_mono_s = known, time.monotonic()
        return known
