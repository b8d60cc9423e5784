"""grpc probes, against a server of grpc's own (etcd's health service) and against others."""

from __future__ import annotations

import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootstrap.components import ETCD_VERSION
from hpk.model.handlers import GrpcAction
from hpk.statefs import HpkPaths
from hpk.supervisor.link.host_network import HostNetwork
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.grpc_check import check_grpc
from tests.kubelet_settings import free_port
from tests.supervisor_bench import wait_until

LOCAL = "127.0.0.1"
NETWORK = HostNetwork(lambda: LOCAL)


def check(port: int, service: str = "", timeout_s: float = 10) -> CheckResult:
    return check_grpc(GrpcAction(port, service), NETWORK, timeout_s, "kube-probe/1.37")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The client port of an etcd of its own."""
    cache = Path(HpkPaths.from_environment().cache)
    program = cache / "binaries" / "etcd" / ETCD_VERSION / "etcd"
    if not program.exists():
        pytest.skip("no etcd here: hpk setup binaries")
    directory = tmp_path_factory.mktemp("etcd")
    client, peer = free_port(), free_port()
    peers = f"http://{LOCAL}:{peer}"
    clients = f"http://{LOCAL}:{client}"
    argv = [str(program), "--data-dir", str(directory / "data"), "--log-level", "error"]
    argv += ["--listen-client-urls", clients, "--advertise-client-urls", clients]
    argv += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    argv += ["--initial-cluster", f"default={peers}"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        wait_until(lambda: check(client).outcome is Outcome.SUCCESS, timeout_s=60)
        yield client
    finally:
        process.kill()
        process.wait()


def test_a_server_that_serves(etcd: int) -> None:
    assert check(etcd) == CheckResult(Outcome.SUCCESS)


def test_a_service_that_nobody_knows(etcd: int) -> None:
    result = check(etcd, "no.such.Service" * 20)
    assert result.outcome is Outcome.FAILURE
    assert result.text.startswith("error: health rpc probe failed: the server gave no answer")


def test_nobody_listens() -> None:
    port = free_port()
    assert check(port) == CheckResult(
        Outcome.FAILURE,
        f'error: failed to connect service at "{LOCAL}:{port}": dial tcp {LOCAL}:{port}:'
        " connect: connection refused",
    )


class Replies(socketserver.BaseRequestHandler):
    """Says the server's bytes to whoever comes, then waits for him to go."""

    def handle(self) -> None:
        self.request.sendall(self.server.reply)  # type: ignore[attr-defined]
        while self.request.recv(65536):
            pass


NOT_SERVING = b"\0\0\7" + b"\0\1" + b"\0\0\0\1" + b"\0\0\0\0\2\x08\2"


GOAWAY = b"\0\0\x08" + b"\7\0" + b"\0\0\0\0"
ENDLESS = (b"\0\x10\0" + b"\0\0" + b"\0\0\0\1" + bytes(4096)) * 2


@pytest.mark.parametrize(
    ("reply", "timeout_s", "text"),
    [
        (
            GOAWAY + b"\x7f\xff\xff\xff" + b"\0\0\0\0" + NOT_SERVING,
            60,
            'service unhealthy (responded with "NOT_SERVING")',
        ),
        (
            GOAWAY + b"\0\0\0\1" + b"\0\0\0\2" + NOT_SERVING,
            60,
            "error: health rpc probe failed: the server has ended the call",
        ),
        (
            GOAWAY + b"\0\0\0\0" + b"\0\0\0\0" + NOT_SERVING,
            60,
            "error: health rpc probe failed: the server has ended the call",
        ),
        (ENDLESS, 60, "error: health rpc probe failed: the server's answer is too long"),
        (NOT_SERVING, 60, 'service unhealthy (responded with "NOT_SERVING")'),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 60, "error: health rpc probe failed: what answers"),
        (
            b"\0\0\0\7\0\0\0\0\0",
            60,
            "error: health rpc probe failed: the server has ended the call",
        ),
        (b"\0\0\0\4\0\0\0\0\0", 0.5, "timeout: health rpc did not complete within 0.5s"),
    ],
)
def test_other_answers(reply: bytes, timeout_s: float, text: str) -> None:
    server = socketserver.ThreadingTCPServer((LOCAL, 0), Replies)
    server.reply = reply  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        result = check(server.server_address[1], timeout_s=timeout_s)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert result.outcome is Outcome.FAILURE
    assert result.text.startswith(text)
