"""The variables by which a container finds the API server, and other Services. Pure.

Names are those of the Service ``kubernetes`` with its one port, https on 443; the values say where
it is reached, which is another port. Source: k8s.io/kubernetes, pkg/kubelet/envvars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hpk.model.plan import EnvVar

API_SERVICE = "kubernetes"
_LINK = "KUBERNETES_PORT_443_TCP"
SERVICE_VARIABLES = (
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBERNETES_SERVICE_PORT_HTTPS",
    "KUBERNETES_PORT",
    _LINK,
    f"{_LINK}_PROTO",
    f"{_LINK}_PORT",
    f"{_LINK}_ADDR",
)
"""Known only where the container runs: they come in the bundle."""


def service_variables(host: str, port: str) -> tuple[EnvVar, ...]:
    """All of them, for an API server at this address and port."""
    url = f"tcp://{host}:{port}"
    values = (host, port, port, url, url, "tcp", port, host)
    return tuple(EnvVar(*pair) for pair in zip(SERVICE_VARIABLES, values, strict=True))


def link_variables(services: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What ``enableServiceLinks`` gives: the Services of a namespace that have a cluster IP, but
    for the API server's own, under the names that Docker's links once had.

    :param services: ``v1.Service`` as JSON.
    """
    variables: dict[str, str] = {}
    for service in services:
        name, spec = service["metadata"]["name"], service.get("spec") or {}
        address, ports = spec.get("clusterIP"), spec.get("ports") or []
        if name == API_SERVICE or address in (None, "", "None") or not ports:
            continue
        prefix = name.upper().replace("-", "_")
        variables[f"{prefix}_SERVICE_HOST"] = address
        variables[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                named = port["name"].upper().replace("-", "_")
                variables[f"{prefix}_SERVICE_PORT_{named}"] = str(port["port"])
        for index, port in enumerate(ports):
            variables |= _links(prefix, address, port, is_first=index == 0)
    return variables


def _links(prefix: str, address: str, port: Mapping[str, Any], *, is_first: bool) -> dict[str, str]:
    protocol, number = str(port.get("protocol") or "TCP"), str(port["port"])
    host = f"[{address}]" if ":" in address else address
    url = f"{protocol.lower()}://{host}:{number}"
    link = f"{prefix}_PORT_{number}_{protocol.upper()}"
    first = {f"{prefix}_PORT": url} if is_first else {}
    return first | {
        link: url,
        f"{link}_PROTO": protocol.lower(),
        f"{link}_PORT": number,
        f"{link}_ADDR": address,
    }
