"""How the supervisor and the kubelet meet: this side dials; where it cannot, the kubelet does.

Whoever opens the TCP connection, in TLS the kubelet is the server, which proves itself by its
certificate, and the token is sent to nobody else: what follows is the same both ways. A node that
cannot reach the kubelet listens on a port that the pod's record names; whoever else connects there
learns nothing and is let go within seconds. Of the channel's thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any, Optional

from hpk.durable import read_file
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.shared_files import SharedFiles
from hpk.supervisor.link.connection import keep_alive
from hpk.supervisor.link.control_plane import ControlPlane

_SERVER_NAME = "hpk-channel"
_CONNECT_TIMEOUT_S = 10.0
_CALLED_TIMEOUT_S = 3.0
"""For dialling and for handshakes while the kubelet may be calling, too."""
_LISTEN_AFTER_S = 300.0
"""How long the kubelet must have been out of reach, where it was within it before."""
_BACKLOG = 16
_FRESH_S = 1.0
_READ_S = 10.0


class Meeting:
    """See the module's docstring."""

    def __init__(self, control_plane: ControlPlane, files: SharedFiles, ca_path: str) -> None:
        self._control_plane = control_plane
        self._files = files
        self._ca_path = ca_path
        self._context: Any = None
        self._listener: Optional[socket.socket] = None
        self.port = 0
        """Where the kubelet may dial; 0 where it need not. From any thread."""
        self._has_called = False
        self._called_in_vain = False
        """Nothing came of the last call, which may have been a stranger's: we dial next."""
        self._has_met = False
        self._missed_since_s: Optional[float] = None

    def connect(self, ssl: Any) -> Any:
        """A TLS connection with the kubelet, whoever opened it.

        :raises OSError: there is none.
        """
        context = self._tls(ssl)
        called = None if self._called_in_vain else self._accept()
        self._has_called = self._called_in_vain = called is not None
        plain = called or self._dial()
        try:
            keep_alive(plain)
            return context.wrap_socket(plain, server_hostname=_SERVER_NAME)
        except ssl.SSLCertVerificationError:
            self._context = None
            raise
        finally:
            plain.close()  # wrapped, it has no descriptor any more

    def met(self) -> bool:
        """The kubelet knows this pod; whether it need not dial any more."""
        self._has_met, self._missed_since_s, self._called_in_vain = True, None, False
        if self._has_called or self._listener is None:
            return False
        self._listener.close()
        self._listener, self.port = None, 0
        return True

    def missed(self) -> bool:
        """It was not reached; whether it may dial from now on."""
        now = time.monotonic()
        self._missed_since_s = self._missed_since_s or now
        is_long = now - self._missed_since_s >= _LISTEN_AFTER_S
        if self._listener is not None or (self._has_met and not is_long):
            return False
        try:
            listener = socket.create_server(("", 0), backlog=_BACKLOG)
            listener.setblocking(False)
        except OSError as error:
            log("channel: the kubelet cannot dial either", error=error)
            return False
        self._listener, self.port = listener, int(listener.getsockname()[1])
        log("channel: the kubelet may dial", port=self.port)
        return True

    def wait(self, seconds: float, wake_fd: int) -> None:
        """Until something is to be read from the descriptor, or the kubelet has dialled."""
        with select.epoll() as poller:
            poller.register(wake_fd, select.EPOLLIN)
            if self._listener is not None and not self._called_in_vain:
                poller.register(self._listener, select.EPOLLIN)
            poller.poll(max(0.0, seconds))

    @property
    def was_dialled(self) -> bool:
        """Whether somebody has, waits, and is to be heard next."""
        if self._listener is None or self._called_in_vain:
            return False
        with select.epoll() as poller:
            poller.register(self._listener, select.EPOLLIN)
            return bool(poller.poll(0))

    def _accept(self) -> Optional[socket.socket]:
        if self._listener is None:
            return None
        with contextlib.suppress(OSError):
            plain, _ = self._listener.accept()
            plain.settimeout(_CALLED_TIMEOUT_S)
            return plain
        return None

    def _dial(self) -> socket.socket:
        endpoint = self._control_plane.endpoint(max_age_s=_FRESH_S)
        timeout_s = _CONNECT_TIMEOUT_S if self._listener is None else _CALLED_TIMEOUT_S
        address = (endpoint.address, endpoint.channel_port)
        return socket.create_connection(address, timeout=timeout_s)

    def _tls(self, ssl: Any) -> Any:
        """Made once, for without the shared file system the kubelet can still be reached; and again
        where it has another CA by now."""
        if self._context is None:
            ca = self._files.wait(lambda: read_file(self._ca_path), _READ_S).decode("ascii")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_verify_locations(cadata=ca)
            self._context = context
        return self._context
