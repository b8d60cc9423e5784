"""The user a container runs as, and what he may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpk.model.rights import CAPABILITIES, DEFAULT_CAPABILITIES, Rights
from hpk.supervisor.inside.selinux import check_selinux
from hpk.supervisor.inside.sub_path import VolumeError
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
        ("web", {"fsGroup": 2000}, {}, (101, 2000)),
        ("root", {"runAsUser": 5, "fsGroup": 7}, {}, (5, 7)),
        ("root", {"fsGroup": 7, "supplementalGroups": [7]}, {"runAsUser": 5}, (5, 7)),
        ("root", {"fsGroup": 0}, {}, (0, 0)),
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
            {"fsGroup": 2000, "runAsGroup": 7},
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


def rights(own: dict[str, Any], pod_context: dict[str, Any] | None = None) -> Rights:
    made = a_pod(
        container={"name": "web", "securityContext": own},
        spec={"securityContext": pod_context or {}},
    )
    return plan(made).containers[0].rights


@pytest.mark.parametrize(
    ("own", "pod_context", "asks"),
    [
        ({}, {}, False),
        ({"seLinuxOptions": {}}, {}, False),
        ({"seLinuxOptions": {"level": "s0"}}, {}, True),
        ({}, {"seLinuxOptions": {"type": "t"}}, True),
    ],
)
def test_a_context_of_selinux(
    own: dict[str, Any], pod_context: dict[str, Any], asks: bool, tmp_path: Path
) -> None:
    made = a_pod(
        container={"name": "web", "securityContext": own}, spec={"securityContext": pod_context}
    )
    (container,) = plan(made).containers
    assert container.selinux is asks
    check_selinux(container, str(tmp_path / "not-there"))
    if asks:
        with pytest.raises(VolumeError, match="this node runs SELinux") as caught:
            check_selinux(container, str(tmp_path))
        assert caught.value.reason == "CreateContainerError"
    else:
        check_selinux(container, str(tmp_path))


ALL_BUT_CHOWN = tuple(name for name in CAPABILITIES if name != "CHOWN")


@pytest.mark.parametrize(
    ("add", "drop", "privileged", "kept"),
    [
        ([], [], False, DEFAULT_CAPABILITIES),
        ([], ["ALL"], False, ()),
        (["NET_BIND_SERVICE"], ["ALL"], False, ("NET_BIND_SERVICE",)),
        (["cap_sys_nice"], ["all"], False, ("SYS_NICE",)),
        (["ALL"], ["CAP_chown"], False, ALL_BUT_CHOWN),
        (["ALL"], ["ALL"], False, ()),
        (["CHOWN"], ["CHOWN", "ALL"], False, ()),
        ([], [], True, CAPABILITIES),
        ([], ["CHOWN"], True, ALL_BUT_CHOWN),
        (["SETUID", "SETGID"], ["ALL"], False, ("SETGID", "SETUID", "SETFCAP")),
        (["SETUID"], ["ALL", "SETFCAP"], False, ("SETUID",)),
    ],
)
def test_capabilities(
    add: list[str], drop: list[str], privileged: bool, kept: tuple[str, ...]
) -> None:
    asked = {"capabilities": {"add": add, "drop": drop}, "privileged": privileged}
    assert rights(asked).capabilities == kept


@pytest.mark.parametrize(
    ("own", "pod_context", "is_filtered"),
    [
        ({}, {}, True),
        ({}, {"type": "RuntimeDefault"}, True),
        ({}, {"type": "Unconfined"}, False),
        ({"seccompProfile": {"type": "RuntimeDefault"}}, {"type": "Unconfined"}, True),
        ({"seccompProfile": {"type": "Unconfined"}}, {"type": "RuntimeDefault"}, False),
        ({"seccompProfile": {"type": "RuntimeDefault"}, "privileged": True}, {}, False),
    ],
)
def test_seccomp_profiles(
    own: dict[str, Any], pod_context: dict[str, Any], is_filtered: bool
) -> None:
    assert rights(own, {"seccompProfile": pod_context}).is_filtered is is_filtered


def test_what_else_a_container_may_or_not() -> None:
    assert rights({}).can_gain
    assert rights({"allowPrivilegeEscalation": True}).can_gain
    assert not rights({"allowPrivilegeEscalation": False}).can_gain
    context = {"readOnlyRootFilesystem": True}
    assert plan(a_pod(container={"securityContext": context})).containers[0].read_only_root


@pytest.mark.parametrize(
    ("own", "field", "part"),
    [
        (
            {"capabilities": {"add": ["CHOWN", "CAP_NO_SUCH"]}},
            "capabilities.add[1]",
            "unknown capability 'CAP_NO_SUCH'",
        ),
        (
            {"capabilities": {"drop": ["EVERYTHING"]}},
            "capabilities.drop[0]",
            "unknown capability 'EVERYTHING'",
        ),
        (
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "mine.json"}},
            "seccompProfile.type",
            "only 'RuntimeDefault' or 'Unconfined' is supported yet",
        ),
    ],
)
def test_rights_that_cannot_be(own: dict[str, Any], field: str, part: str) -> None:
    error = refusal(a_pod(container={"name": "web", "securityContext": own}))
    assert error.field == f"spec.containers[0].securityContext.{field}"
    assert part in str(error)


def test_sysctls_of_the_pods_own_namespaces() -> None:
    asked = [
        {"name": "kernel.shm_rmid_forced", "value": "1"},
        {"name": "kernel/shm_rmid_forced", "value": "0"},
    ]
    result = plan(a_pod(spec={"securityContext": {"sysctls": asked}}))
    assert result.sysctls == (("kernel.shm_rmid_forced", "1"), ("kernel.shm_rmid_forced", "0"))


@pytest.mark.parametrize("name", ["kernel.msgmax", "kernel/msgmax", "vm.swappiness", "fs/../x"])
def test_sysctls_that_upstream_forbids_are_forbidden(name: str) -> None:
    error = refusal(a_pod(spec={"securityContext": {"sysctls": [{"name": name, "value": "1"}]}}))
    assert error.reason == "SysctlForbidden"
    assert "forbidden sysctl: " in str(error)
