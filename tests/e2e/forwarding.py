"""kubectl port-forward, as tests start it on the login node and go through it."""

from __future__ import annotations

import re

from tests.e2e.cluster import Cluster

BY = {"websocket": "true", "spdy": "false"}
"""How kubectl asks for it: SPDY in a WebSocket, or SPDY alone."""
HALF_CLOSE = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
    connection.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    connection.shutdown(socket.SHUT_WR)
    answer = b""
    while data := connection.recv(65536):
        answer += data
print(answer.decode().splitlines()[-1])
"""


class Forward:
    """A kubectl that forwards, and the port of the login node where it does."""

    def __init__(self, cluster: Cluster, *what: str, by: str = "websocket") -> None:
        self._cluster = cluster
        argv = ["env", f"KUBECTL_PORT_FORWARD_WEBSOCKETS={BY[by]}", "kubectl"]
        argv += ["--namespace", cluster.namespace, "port-forward", *what]
        self.process = cluster.start(argv)
        assert self.process.stdout is not None
        self.stdout = self.process.stdout
        line = self.stdout.readline()
        found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) ->", line)
        assert found, line + self.stdout.read()
        self.port = found[1]

    def ask(self, script: str) -> str:
        """What a program on the login node says that uses it."""
        return self._cluster.run(["python3", "-c", script, self.port]).stdout.strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdout.close()
