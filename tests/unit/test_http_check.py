"""httpGet probes against servers that do not behave."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import repeat

import pytest

from hpk.model.handlers import HttpGetAction
from hpk.supervisor.link.host_network import HostNetwork
from hpk.supervisor.probes.check_result import CheckResult, Outcome
from hpk.supervisor.probes.dialing import CheckError, receive, send
from hpk.supervisor.probes.http_check import check_http

LOCAL = "127.0.0.1"
NETWORK = HostNetwork(lambda: LOCAL)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@contextmanager
def server(answer: Iterator[bytes]) -> Iterator[int]:
    """Says all of it to the first who comes; its port."""

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in answer:
                    connection.sendall(piece)

    with socket.create_server((LOCAL, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def check(answer: Iterator[bytes], timeout_s: float = 30) -> CheckResult:
    with server(answer) as port:
        action = HttpGetAction(port)
        return check_http(action, NETWORK, timeout_s, "kube-probe/1.37")


def test_an_answer_may_be_announced_a_few_times() -> None:
    answer = iter((CONTINUE * 5, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    assert check(answer) == CheckResult(Outcome.SUCCESS)


def test_an_answer_that_is_only_announced_is_none() -> None:
    result = check(repeat(CONTINUE * 100, 1000))
    assert result.outcome is Outcome.FAILURE
    assert result.text.endswith("too many 1xx informational responses")


@pytest.mark.parametrize("status", ["\u00b2\u00b2\u00b2", "20", "2000", "9" * 5000])
def test_a_status_that_is_no_number_of_three_digits(status: str) -> None:
    result = check(iter((f"HTTP/1.1 {status} OK\r\n\r\n".encode("latin-1"),)))
    assert result.outcome is Outcome.FAILURE
    assert "malformed HTTP response" in result.text


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000, "-1", ""])
def test_a_length_that_is_no_number_does_not_matter(length: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nx".encode("latin-1")
    assert check(iter((answer,))) == CheckResult(Outcome.SUCCESS)


def test_nothing_is_read_or_sent_beyond_the_deadline() -> None:
    """However ready the other is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        with pytest.raises(CheckError, match="deadline exceeded"):
            receive(ours, time.monotonic())
        with pytest.raises(CheckError, match="write: i/o timeout"):
            send(ours, b"x", time.monotonic())
        assert receive(ours, time.monotonic() + 30) == b"x"
