"""The user a container runs as, and what it gives up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.planning import a_pod, plan, refusal


@pytest.mark.parametrize(
    ("name", "pod_context", "own", "ids"),
    [
        ("web", {}, {}, (101, 102)),
        ("web", {"runAsUser": 5}, {}, (5, 0)),
        ("web", {"runAsUser": 101}, {}, (101, 102)),
        ("web", {"runAsUser": 5}, {"runAsUser": 0}, (0, 0)),
        ("web", {"runAsGroup": 7}, {}, (101, 7)),
        ("root", {"runAsUser": 5, "runAsGroup": 6}, {"runAsGroup": 7}, (5, 7)),
        ("root", {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 6, "runAsNonRoot": True}, {}, (5, 6)),
        ("root", {"runAsNonRoot": True}, {"runAsNonRoot": False}, (0, 0)),
        ("web", {"runAsNonRoot": True, "supplementalGroups": [102]}, {}, (101, 102)),
    ],
)
def test_users(
    name: str, pod_context: dict[str, Any], own: dict[str, Any], ids: tuple[int, int]
) -> None:
    container = {"name": name, "securityContext": own}
    result = plan(a_pod(container=container, spec={"securityContext": pod_context}))
    assert (result.containers[0].uid, result.containers[0].gid) == ids


@pytest.mark.parametrize(
    ("name", "context", "reason", "field", "part"),
    [
        (
            "root",
            {"runAsNonRoot": True},
            "CreateContainerConfigError",
            "spec.containers[0].securityContext.runAsNonRoot",
            "container has runAsNonRoot and image will run as root (pod: ",
        ),
        (
            "web",
            {"runAsNonRoot": True, "runAsUser": 0},
            "CreateContainerConfigError",
            "spec.containers[0].securityContext.runAsNonRoot",
            "container's runAsUser breaks non-root policy (pod: ",
        ),
        (
            "web",
            {"fsGroup": 2000},
            "UnsupportedField",
            "spec.securityContext.fsGroup",
            "set runAsGroup to 2000",
        ),
        (
            "web",
            {"supplementalGroups": [102, 5]},
            "UnsupportedField",
            "spec.securityContext.supplementalGroups[1]",
            "has one group",
        ),
        ("web", {"runAsUser": 2**31}, "InvalidField", "spec.securityContext.runAsUser", "at most"),
    ],
)
def test_users_that_cannot_be(
    name: str, context: dict[str, Any], reason: str, field: str, part: str
) -> None:
    error = refusal(a_pod(container={"name": name}, spec={"securityContext": context}))
    assert (error.reason, error.field) == (reason, field)
    assert part in str(error)


def test_what_a_container_gives_up() -> None:
    context = {"capabilities": {"drop": ["ALL", "CAP_chown"]}, "readOnlyRootFilesystem": True}
    (container,) = plan(a_pod(container={"securityContext": context})).containers
    assert container.dropped_capabilities == ("ALL", "CHOWN")
    assert container.read_only_root
