"""The kubelet API server: start, serve, stop.

Config → startup → shutdown: `start` binds and returns once the port answers, `stop` ends every
connection. What is served lies in the endpoint modules; who may connect, in `front_door`.
"""

from __future__ import annotations

from hpk.model.settings import KubeletSettings
from kubelet.server.backend import KubeletBackend


class KubeletServer:
    """One HTTPS listener for all virtual nodes."""

    async def start(self, settings: KubeletSettings, backend: KubeletBackend) -> None:
        """Listen on ``settings.address:settings.port``.

        :raises PermanentError: a certificate or key cannot be read.
        :raises TransientError: the port is taken.
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop listening and end every connection; harmless when not started."""
        raise NotImplementedError
