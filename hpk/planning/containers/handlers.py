"""What a probe or a lifecycle hook does: exec, httpGet, tcpSocket, grpc or sleep. Pure.

Ports by name are looked up here, and one that no container port has is refused: upstream would
start such a container and complain at each probe. Source: k8s.io/kubernetes, pkg/probe/util.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.model.handlers import GrpcAction, Handler, HttpGetAction, TcpSocketAction
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import (
    INVALID,
    JsonObject,
    check_text,
    get_integer,
    get_object,
    get_objects,
    get_text,
    get_texts,
)
from hpk.planning.base.whitelist import Check, anything, objects, one_object, only

EXEC = one_object({"command": anything})
HTTP_GET = one_object(
    {
        "host": anything,
        "httpHeaders": objects({"name": anything, "value": anything}),
        "path": anything,
        "port": anything,
        "protocol": only("HTTP1"),
        "scheme": only("HTTP", "HTTPS"),
    }
)
_TCP_SOCKET = one_object({"host": anything, "port": anything})
_NUMBERS = (
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
    "terminationGracePeriodSeconds",
)
PROBE: Mapping[str, Check] = {
    **dict.fromkeys(_NUMBERS, anything),
    "exec": EXEC,
    "grpc": one_object({"mode": only("Plaintext"), "port": anything, "service": anything}),
    "httpGet": HTTP_GET,
    "tcpSocket": _TCP_SOCKET,
}
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


def plan_handler(container: PodContainer, action: JsonObject, path: str) -> Handler | None:
    """The action of a probe or a hook; None where there is none.

    :param path: of ``action``.
    """
    kinds = [kind for kind in ("exec", "httpGet", "tcpSocket", "grpc", "sleep") if action.get(kind)]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise AdmissionError(INVALID, f"{path}.{kinds[1]}", f"there is {kinds[0]} already")
    kind = kinds[0]
    field, spec = f"{path}.{kind}", get_object(action, kind, path)
    if kind == "exec":
        command = get_texts(spec, "command", field)
        if not command:
            raise AdmissionError(INVALID, f"{field}.command", "must name a program")
        return Handler(exec=command)
    if kind == "sleep":
        return Handler(sleep_s=get_integer(spec, "seconds", field, 0))
    port = _port(container, spec.get("port"), f"{field}.port")
    if kind == "httpGet":
        return Handler(http_get=_http_get(spec, port, field))
    if kind == "tcpSocket":
        return Handler(tcp_socket=TcpSocketAction(port=port, host=get_text(spec, "host", field)))
    return Handler(grpc=GrpcAction(port=port, service=get_text(spec, "service", field)))


def _http_get(spec: JsonObject, port: int, field: str) -> HttpGetAction:
    headers = tuple(
        (_header_name(item, path), _header_value(item, path))
        for path, item in get_objects(spec, "httpHeaders", field)
    )
    return HttpGetAction(
        port=port,
        path=get_text(spec, "path", field) or "/",
        host=get_text(spec, "host", field),
        scheme=get_text(spec, "scheme", field) or "HTTP",
        headers=headers,
    )


def _header_name(item: JsonObject, path: str) -> str:
    name = get_text(item, "name", path)
    if not name or not _TOKEN.issuperset(name):
        raise AdmissionError(INVALID, f"{path}.name", f"{name!r} cannot name a header")
    return name


def _header_value(item: JsonObject, path: str) -> str:
    value = get_text(item, "value", path)
    if "\r" in value or "\n" in value:
        raise AdmissionError(INVALID, f"{path}.value", "must be one line")
    return value


def _port(container: PodContainer, value: Any, path: str) -> int:
    """A port by number or by the name of one of the container's."""
    if isinstance(value, str):
        name = check_text(value, path)
        for port_path, port in get_objects(container.spec, "ports", container.path):
            if port.get("name") == name:
                value = port.get("containerPort")
                path = f"{port_path}.containerPort"
                break
        else:
            if not (name.isascii() and name.isdigit()):
                raise AdmissionError(
                    INVALID, path, f"{container.name} has no port named {name!r}", remedy="name one"
                )
            value = int(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise AdmissionError(INVALID, path, "must be a port from 1 to 65535")
    return value
