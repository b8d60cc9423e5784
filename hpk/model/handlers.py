"""Probes and lifecycle hooks of a container, as the supervisor runs them.

Ports are numbers here: hpk.planning has looked up those that a Pod gives by name.
"""

from __future__ import annotations

from enum import Enum
from typing import Optional

from hpk.model.frozen import dataclass


class ProbeKind(str, Enum):
    """Which of a container's probes, as upstream's events spell it."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True)
class HttpGetAction:
    """``httpGet``.

    :param scheme: ``HTTP`` or ``HTTPS``, whose certificate nobody checks.
    :param host: "" for the pod's address.
    :param headers: in the Pod's order; a name may be there twice.
    """

    port: int
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TcpSocketAction:
    """``tcpSocket``; host "" for the pod's address."""

    port: int
    host: str = ""


@dataclass(frozen=True)
class GrpcAction:
    """``grpc``: the standard health service on the pod's address, without TLS."""

    port: int
    service: str = ""


@dataclass(frozen=True)
class Handler:
    """What a probe or a hook does: exactly one of these is set."""

    exec: tuple[str, ...] = ()
    http_get: Optional[HttpGetAction] = None
    tcp_socket: Optional[TcpSocketAction] = None
    grpc: Optional[GrpcAction] = None
    sleep_s: Optional[int] = None


@dataclass(frozen=True)
class ProbePlan:
    """``v1.Probe``, upstream's defaults filled in.

    :param grace_period_s: what a container that this probe fails has to end in, None for the
        Pod's own grace period.
    """

    handler: Handler
    initial_delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3
    grace_period_s: Optional[int] = None


@dataclass(frozen=True)
class ContainerProbes:
    """A container's probes."""

    startup: Optional[ProbePlan] = None
    liveness: Optional[ProbePlan] = None
    readiness: Optional[ProbePlan] = None


@dataclass(frozen=True)
class Lifecycle:
    """``lifecycle``."""

    post_start: Optional[Handler] = None
    pre_stop: Optional[Handler] = None


NO_PROBES = ContainerProbes()
NO_LIFECYCLE = Lifecycle()
