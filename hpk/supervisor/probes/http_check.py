"""Asking a container by httpGet. Blocks, for so long at most.

Certificates are not looked at, as upstream does not either. Source: kubernetes pkg/probe/http.
"""

from __future__ import annotations

import socket
import time

from hpk.model.frozen import replace
from hpk.model.handlers import HttpGetAction
from hpk.supervisor.base.pod_network import PodNetwork
from hpk.supervisor.probes.check_result import MAX_OUTPUT_BYTES, CheckResult, Outcome
from hpk.supervisor.probes.dialing import (
    CheckError,
    TlsRefusedError,
    dial,
    receive,
    send,
    start_tls,
)
from hpk.supervisor.probes.http_message import (
    Answer,
    Request,
    first_request,
    parse_head,
    redirected,
)

_MAX_HEAD_BYTES = 256 * 1024
_MAX_REDIRECTS = 10
_MAX_INFORMATIONAL = 5
"""Answers of 1xx before the real one; source: Go's net/http (max1xxResponses)."""
_NO_BODY = (204, 304)
_MAX_DIGITS = 19


def check_http(
    action: HttpGetAction, network: PodNetwork, timeout_s: float, agent: str
) -> CheckResult:
    """Whether a GET is answered with 200 to 399.

    :param agent: the ``User-Agent``, where the Pod gives none.
    """
    deadline = time.monotonic() + timeout_s
    request = first_request(action, network.addresses[0])
    first_host, url = request.host, request.url
    try:
        for _ in range(_MAX_REDIRECTS):
            answer = _ask(request, network, agent, deadline)
            following = redirected(request, answer)
            if following is None or following.host != first_host:
                return _judge(answer)
            request = following
    except CheckError as error:
        is_plain = isinstance(error, TlsRefusedError)
        return CheckResult(Outcome.FAILURE, f'Get "{url}": {error}', refused_tls=is_plain)
    return CheckResult(Outcome.FAILURE, f'Get "{request.url}": stopped after 10 redirects')


def _judge(answer: Answer) -> CheckResult:
    if 200 <= answer.status < 300:
        return CheckResult(Outcome.SUCCESS)
    if 300 <= answer.status < 400:
        body = answer.body.decode(errors="replace")
        text = f"Probe terminated redirects, Response body: {body}"
        return CheckResult(Outcome.WARNING, text)
    return CheckResult(
        Outcome.FAILURE, f"HTTP probe failed with statuscode: {answer.status}", answered=True
    )  # the body may hold a secret, and Events are read by many


def _ask(request: Request, network: PodNetwork, agent: str, deadline: float) -> Answer:
    connection = dial(network, request.host, request.port, deadline)
    try:
        if request.scheme == "https":
            connection = start_tls(connection, request.host, deadline)
        send(connection, request.to_bytes(agent), deadline)
        return _read_answer(connection, deadline)
    finally:
        connection.close()


def _read_answer(connection: socket.socket, deadline: float) -> Answer:
    data = b""
    informational = 0
    while True:
        head, separator, data = data.partition(b"\r\n\r\n")
        if not separator:
            data = head
            if len(data) > _MAX_HEAD_BYTES:
                raise CheckError("the answer's headers are too long")
            more = receive(connection, deadline)
            if not more:
                raise CheckError("EOF" if not data else "unexpected EOF")
            data += more
            continue
        status, headers = parse_head(head)
        if status >= 200:  # before it there may be a 100
            break
        informational += 1
        if informational > _MAX_INFORMATIONAL:
            raise CheckError("net/http: too many 1xx informational responses")
    answer = Answer(status, headers, data)
    return replace(answer, body=_read_body(connection, answer, deadline))


def _read_body(connection: socket.socket, answer: Answer, deadline: float) -> bytes:
    """The body's first bytes, for a server that minds being hung up on; the status has decided."""
    body, length = answer.body, answer.header("content-length")
    if answer.status in _NO_BODY:
        return b""
    is_number = length.isascii() and length.isdigit() and len(length) <= _MAX_DIGITS
    wanted = min(int(length), MAX_OUTPUT_BYTES) if is_number else MAX_OUTPUT_BYTES
    chunked = "chunked" in answer.header("transfer-encoding").lower()
    try:
        while len(body) < wanted and not (chunked and body.endswith(b"0\r\n\r\n")):
            more = receive(connection, deadline)
            if not more:
                break
            body += more
    except CheckError:
        pass
    return body[:MAX_OUTPUT_BYTES]
