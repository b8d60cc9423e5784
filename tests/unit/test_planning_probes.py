"""Probes as the Pod spells them, and as the plan has them."""

from __future__ import annotations

from typing import Any

import pytest

from hpk.model.errors import AdmissionError
from hpk.model.handlers import (
    ContainerProbes,
    GrpcAction,
    Handler,
    HttpGetAction,
    ProbePlan,
    TcpSocketAction,
)
from hpk.planning.base.containers import PodContainer
from hpk.planning.containers.probes import plan_probes, refuse_exec


def container(**fields: Any) -> PodContainer:
    ports = [{"name": "http", "containerPort": 8080}, {"name": "81", "containerPort": 82}]
    return PodContainer("spec.containers[0]", {"name": "main", "ports": ports, **fields}, False)


def test_defaults_are_upstreams() -> None:
    probe = {"httpGet": {"port": "http"}}
    assert plan_probes(container(livenessProbe=probe)) == ContainerProbes(
        liveness=ProbePlan(
            Handler(http_get=HttpGetAction(port=8080, path="/", host="", scheme="HTTP")),
            initial_delay_s=0,
            period_s=10,
            timeout_s=1,
            success_threshold=1,
            failure_threshold=3,
        )
    )


def test_what_a_probe_says_arrives() -> None:
    headers = [{"name": "X-A", "value": "1"}, {"name": "X-A", "value": ""}]
    get = {"port": 1, "path": "/a?b", "host": "h", "scheme": "HTTPS", "httpHeaders": headers}
    numbers = {
        "initialDelaySeconds": 1,
        "periodSeconds": 2,
        "timeoutSeconds": 3,
        "successThreshold": 4,
        "failureThreshold": 5,
        "terminationGracePeriodSeconds": 6,
    }
    found = plan_probes(
        container(
            readinessProbe={"httpGet": get, **numbers},
            startupProbe={"tcpSocket": {"port": "81"}},
            livenessProbe={"grpc": {"port": 5, "service": "a.b"}},
        )
    )
    action = HttpGetAction(1, "/a?b", "h", "HTTPS", (("X-A", "1"), ("X-A", "")))
    assert found.readiness == ProbePlan(Handler(http_get=action), 1, 2, 3, 4, 5, 6)
    assert found.liveness == ProbePlan(Handler(grpc=GrpcAction(5, "a.b")))
    # A port's name wins over the number it looks like.
    assert found.startup == ProbePlan(Handler(tcp_socket=TcpSocketAction(82)))


def test_commands_know_plain_values_alone() -> None:
    env = [{"name": "A", "value": "$(B)"}, {"name": "S", "valueFrom": {"secretKeyRef": {}}}]
    command = ["sh", "-c", "$(A) $(S) $(NO) $$(A)"]
    found = plan_probes(container(env=env, livenessProbe={"exec": {"command": command}}))
    assert found.liveness is not None
    assert found.liveness.handler.exec == ("sh", "-c", "$(B)  $(NO) $(A)")


@pytest.mark.parametrize(
    ("probe", "field"),
    [
        ({"periodSeconds": 1}, ""),
        ({"exec": {"command": [""], "x": 1}, "tcpSocket": {"port": 1}}, ".tcpSocket"),
        ({"exec": {"command": ["a\0"]}}, ".exec.command[0]"),
        ({"exec": {"env": 1}}, ".exec.command"),
        ({"httpGet": {"port": "no"}}, ".httpGet.port"),
        ({"httpGet": {"port": 0}}, ".httpGet.port"),
        ({"tcpSocket": {"port": 65536}}, ".tcpSocket.port"),
        ({"tcpSocket": {"port": True}}, ".tcpSocket.port"),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}},
            ".httpGet.httpHeaders[0].name",
        ),
        (
            {"httpGet": {"port": 1, "httpHeaders": [{"name": "a", "value": "x\r\nHost: y"}]}},
            ".httpGet.httpHeaders[0].value",
        ),
        ({"tcpSocket": {"port": 1}, "timeoutSeconds": "1"}, ".timeoutSeconds"),
    ],
)
def test_what_nobody_could_ask_is_refused(probe: dict[str, Any], field: str) -> None:
    with pytest.raises(AdmissionError) as refused:
        plan_probes(container(livenessProbe=probe))
    assert refused.value.field == f"spec.containers[0].livenessProbe{field}"


def test_ranks_run_no_commands() -> None:
    refuse_exec(container(livenessProbe={"tcpSocket": {"port": 1}}))
    with pytest.raises(AdmissionError) as refused:
        refuse_exec(container(startupProbe={"exec": {"command": ["true"]}}))
    assert refused.value.field == "spec.containers[0].startupProbe.exec"
