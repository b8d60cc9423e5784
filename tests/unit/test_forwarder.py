"""The forwarder over real sockets: what goes through, whom it serves, what it follows."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpk.model import codec
from hpk.model.settings import Endpoint
from hpk.supervisor.base.shared_files import SharedFiles
from hpk.supervisor.link import forwarder
from hpk.supervisor.link.control_plane import ControlPlane
from tests.supervisor_bench import wait_until

TIMEOUT_S = 30


class Upstream:
    """A server that says its name to whoever connects, and then echoes to the end of input."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.ended = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        try:
            connection.sendall(self.name)
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.sendall(b"bye")
        except OSError:
            pass
        finally:
            self.ended += 1
            connection.close()

    def close(self) -> None:
        """As when the host goes down in good order."""
        for one in (self._listener, *self._open):
            with suppress(OSError):  # it was closed before
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@dataclass
class Bench:
    """A forwarder and the file that it follows."""

    endpoint: Path
    stack: ExitStack
    port: int = 0
    servers: list[Upstream] = field(default_factory=list)

    def serve(self, name: bytes) -> Upstream:
        """An API server, which endpoint.json names from now on."""
        made = Upstream(name)
        self.stack.callback(made.close)
        self.point_to(made.port)
        return made

    def point_to(self, port: int) -> None:
        """Write endpoint.json as the control plane does."""
        text = codec.dumps(Endpoint(1, "h", "127.0.0.1", 1, None, port, 1, 0.0))
        new = self.endpoint.with_name("new")
        new.write_text(text)
        new.replace(self.endpoint)

    def dial(self) -> socket.socket:
        """A client."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        self.stack.callback(made.close)
        return made


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    listener = forwarder.listen()
    with ExitStack() as stack:
        made = Bench(tmp_path / "endpoint.json", stack, forwarder.port_of(listener))
        # Its thread ends with this process, as it does with the pod's.
        plane = ControlPlane(str(made.endpoint), SharedFiles(lambda event: event()))
        forwarder.Forwarder(listener, plane).start()
        yield made


def read_all(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


def test_bytes_go_both_ways_to_the_last_one(bench: Bench) -> None:
    bench.serve(b"name ")
    client = bench.dial()
    payload = os.urandom(3 * 1024 * 1024)

    def send() -> None:
        client.sendall(payload)
        client.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(client) == b"name " + payload + b"bye"
    sender.join()


def test_a_reader_that_does_not_read_holds_nobody_up_and_fills_no_memory(bench: Bench) -> None:
    bench.serve(b"")
    lazy = bench.dial()
    lazy.setblocking(False)
    accepted = 0
    with pytest.raises(BlockingIOError):
        while True:
            accepted += lazy.send(bytes(65536))
            assert accepted < 256 << 20
            wait_until_writable(lazy)
    other = bench.dial()
    other.sendall(b"x")
    other.shutdown(socket.SHUT_WR)
    assert read_all(other) == b"xbye"


def wait_until_writable(sock: socket.socket) -> None:
    """For as long as the other side takes what is sent."""
    select.select([], [sock], [], 0.5)


def test_it_follows_endpoint_json(bench: Bench) -> None:
    first = bench.serve(b"one")
    before = bench.dial()
    assert before.recv(3) == b"one"
    first.close()
    assert before.recv(1) == b""  # who was connected hears of it, and dials again
    bench.serve(b"two")
    assert bench.dial().recv(3) == b"two"


@pytest.mark.parametrize("text", [None, "", "{", '{"api_port": 99999999999}', "\0" * 100])
def test_a_client_waits_for_a_control_plane_that_comes_back(bench: Bench, text: str | None) -> None:
    if text is not None:
        bench.endpoint.write_text(text)
    client = bench.dial()
    client.sendall(b"early")
    bench.serve(b"here")
    assert client.recv(4) == b"here"
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"earlybye"


@pytest.mark.parametrize("port", [0, -1, 10**20])
def test_a_client_is_let_go_where_there_is_no_control_plane(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    monkeypatch.setattr(forwarder, "_DIAL_S", 0.1)
    bench.point_to(port)
    assert bench.dial().recv(1) == b""
    bench.serve(b"ok")
    assert bench.dial().recv(2) == b"ok"


def test_connections_are_bounded_and_the_rest_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "MAX_CONNECTIONS", 3)
    server = bench.serve(b"hi")
    clients = [bench.dial() for _ in range(3)]
    assert [client.recv(2) for client in clients] == [b"hi"] * 3
    late = bench.dial()
    late.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.recv(2)
    clients[0].close()
    wait_until(lambda: server.ended == 1)
    late.settimeout(TIMEOUT_S)
    assert late.recv(2) == b"hi"


def test_what_has_ended_is_forgotten(bench: Bench) -> None:
    server = bench.serve(b"hi")
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(forwarder.MAX_CONNECTIONS + 10):
        client = bench.dial()
        assert client.recv(2) == b"hi"
        client.close()
    wait_until(lambda: server.ended == forwarder.MAX_CONNECTIONS + 10)
    wait_until(lambda: len(list(descriptors.iterdir())) <= before + 2)


def as_ipv4(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)


def as_ipv6(port: int) -> socket.socket:
    client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    client.settimeout(TIMEOUT_S)
    client.connect(("::ffff:127.0.0.1", port))
    return client


def from_elsewhere(port: int) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", port), timeout=TIMEOUT_S, source_address=("127.8.7.6", 0)
    )


@pytest.mark.parametrize("dial", [as_ipv4, as_ipv6, from_elsewhere])
def test_the_owner_of_a_connection_is_known(dial: Callable[[int], socket.socket]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = dial(listener.getsockname()[1])
        accepted, _ = listener.accept()
        with client, accepted:
            assert forwarder.belongs_to(accepted, os.getuid())
            assert not forwarder.belongs_to(accepted, os.getuid() + 1)


STRANGER = """
import os, socket, sys
os.setuid(65534)
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)
print(client.recv(2))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_is_refused(bench: Bench) -> None:
    bench.serve(b"hi")
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(bench.port)], capture_output=True, text=True
    )
    assert done.stdout == "b''\n", done.stderr
    assert bench.dial().recv(2) == b"hi"


def test_strangers_do_not_fill_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forwarder, "belongs_to", lambda _client, _uid: False)
    bench.serve(b"secret")
    assert [bench.dial().recv(1) for _ in range(5)] == [b""] * 5
    assert capfd.readouterr().err.count("another user was refused") == 1
