"""Whether a component does its work: asked over the same authenticated ports its clients use."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from bootstrap.api import TlsClient
from bootstrap.identities import first_service_ip
from bootstrap.site import Site
from hpk.model.errors import ParseError, TransientError

_TIMEOUT_S = 3.0
_TYPE_A, _CLASS_IN, _RECURSION_DESIRED = 1, 1, 0x0100

Check = Callable[[], Awaitable[bool]]


def checks(site: Site) -> dict[str, Check]:
    """A check for each component that serves anybody; the others are ready when they run."""
    pki = site.pki

    def http(port: int, path: str, authority: str, client: str, host: str) -> Check:
        tls = TlsClient(
            host=host,
            port=port,
            ca=pki.authority(authority),
            certificate=pki.certificate(client),
            key=pki.key(client),
        )

        async def check() -> bool:
            try:
                status, _ = await asyncio.to_thread(tls.get, path, timeout_s=_TIMEOUT_S)
            except TransientError:
                return False
            return status == HTTPStatus.OK

        return check

    namespace = "/api/v1/namespaces/default"
    account = http(
        site.ports.api, f"{namespace}/serviceaccounts/default", "api", "admin", site.address
    )
    root_ca = http(
        site.ports.api, f"{namespace}/configmaps/kube-root-ca.crt", "api", "admin", site.address
    )

    async def controllers() -> bool:
        # They serve nobody; but without these two objects of theirs no Pod can be made.
        return await account() and await root_ca()

    kubelet_client = "kube-apiserver-kubelet-client"
    return {
        "etcd": http(site.ports.etcd, "/readyz", "etcd", "supervise-etcd-client", "127.0.0.1"),
        "kube-apiserver": http(site.ports.api, "/readyz", "api", "admin", site.address),
        "kubelet": http(site.ports.kubelet, "/healthz", "api", kubelet_client, site.address),
        "coredns": _dns(site),
        "kube-controller-manager": controllers,
    }


def api_client(site: Site) -> TlsClient:
    """The API server, as the user's own administrator."""
    pki = site.pki
    return TlsClient(
        host=site.address,
        port=site.ports.api,
        ca=pki.authority("api"),
        certificate=pki.certificate("admin"),
        key=pki.key("admin"),
    )


def _dns(site: Site) -> Check:
    tls = TlsClient(
        host="127.0.0.1",
        port=site.ports.dns,
        ca=site.pki.authority("api"),
        certificate=site.pki.certificate("admin"),
        key=site.pki.key("admin"),
    )
    name = f"kubernetes.default.svc.{site.config.cluster_domain}"
    expected = first_service_ip(site.config.service_cidr)

    async def check() -> bool:
        try:
            return expected in await asyncio.to_thread(query_a, tls, name)
        except (OSError, ParseError):
            return False

    return check


def query_a(tls: TlsClient, name: str) -> tuple[str, ...]:
    """The IPv4 addresses of a name, asked over TLS (RFC 7858). Blocks.

    :raises OSError: no answer.
    :raises ParseError: an answer that is none.
    """
    identifier = secrets.randbits(16)
    question = _name_bytes(name) + struct.pack("!HH", _TYPE_A, _CLASS_IN)
    message = struct.pack("!HHHHHH", identifier, _RECURSION_DESIRED, 1, 0, 0, 0) + question
    with (
        socket.create_connection((tls.host, tls.port), timeout=_TIMEOUT_S) as plain,
        tls.context().wrap_socket(plain, server_hostname=tls.host) as connection,
    ):
        connection.sendall(struct.pack("!H", len(message)) + message)
        (length,) = struct.unpack("!H", _read(connection, 2))
        answer = _read(connection, length)
    return parse_answer(answer, identifier)


def _read(connection: ssl.SSLSocket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise ConnectionError("the DNS server hung up")
        data += chunk
    return data


def _name_bytes(name: str) -> bytes:
    labels = [label.encode() for label in name.rstrip(".").split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def parse_answer(message: bytes, identifier: int) -> tuple[str, ...]:
    """The A records of a DNS message (RFC 1035, section 4).

    :raises ParseError: it is cut short, answers something else, or says that there was an error.
    """
    try:
        got, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", message)
        if got != identifier or not flags & 0x8000:
            raise ParseError("a DNS message that answers something else")
        if flags & 0xF:
            raise ParseError(f"DNS response code {flags & 0xF}")
        offset = 12
        for _ in range(questions):
            offset = _skip_name(message, offset) + 4
        addresses = []
        for _ in range(answers):
            offset = _skip_name(message, offset)
            kind, _, _, length = struct.unpack_from("!HHIH", message, offset)
            offset += 10
            if kind == _TYPE_A:
                addresses.append(socket.inet_ntoa(message[offset : offset + length]))
            offset += length
    except (struct.error, IndexError, OSError) as error:
        raise ParseError("a DNS message that is cut short") from error
    return tuple(addresses)


def _skip_name(message: bytes, offset: int) -> int:
    while (length := message[offset]) != 0:
        if length & 0xC0:
            return offset + 2
        offset += length + 1
    return offset + 1
