"""The variables by which a container finds the API server. Pure.

Names are those of the Service ``kubernetes`` with its one port, https on 443; the values say where
it is reached, which is another port. Source: k8s.io/kubernetes, pkg/kubelet/envvars.
"""

from __future__ import annotations

from hpk.model.plan import EnvVar

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
