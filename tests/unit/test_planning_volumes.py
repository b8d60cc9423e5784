"""Volumes and their mounts: what they show, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import AdmissionError
from hpk.model.plan import EmptyDirVolume, HostPathVolume, KeyToPath, PodPlan, VolumeMount
from tests.planning import a_pod, plan, refusal


def mounted(volume: dict[str, Any], **mount: Any) -> PodPlan:
    pod = a_pod(
        spec={"volumes": [{"name": "v", **volume}]},
        container={"volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]},
    )
    return plan(pod)


@pytest.mark.parametrize(
    ("source", "memory", "limit"),
    [
        ({}, False, None),
        ({"medium": "Memory"}, True, None),
        ({"sizeLimit": "1Mi"}, False, 1 << 20),
        ({"sizeLimit": "0"}, False, None),
    ],
)
def test_empty_dirs(source: dict[str, Any], memory: bool, limit: int | None) -> None:
    result = mounted({"emptyDir": source})
    assert result.empty_dirs == (EmptyDirVolume("v", memory, limit),)
    assert result.containers[0].mounts == (VolumeMount("v", "/v", False),)


def test_host_paths() -> None:
    source = {"hostPath": {"path": "/home/alice//data/", "type": "DirectoryOrCreate"}}
    result = mounted(source, subPath="a//b/", readOnly=True)
    assert result.host_paths == (HostPathVolume("v", "/home/alice/data", "DirectoryOrCreate"),)
    assert result.containers[0].mounts == (VolumeMount("v", "/v", True, "a/b"),)


@pytest.mark.parametrize("path", ["/home/alice", "/", "/home/alice/.hpkx", "//scratch"])
def test_host_paths_beside_our_own(path: str) -> None:
    assert mounted({"hostPath": {"path": path}}).host_paths


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/home/alice/.hpk", "HostPathForbidden"),
        ("/home/alice/.hpk/pki", "HostPathForbidden"),
        ("/home//alice/./.hpk/", "HostPathForbidden"),
        ("/home/bob/../alice/.hpk", "InvalidField"),
        ("data", "InvalidField"),
        ("", "InvalidField"),
        ("/a\0", "InvalidField"),
    ],
)
def test_host_paths_that_are_refused(path: str, reason: str) -> None:
    with pytest.raises(AdmissionError) as caught:
        mounted({"hostPath": {"path": path}})
    assert (caught.value.reason, caught.value.field) == (reason, "spec.volumes[0].hostPath.path")


def test_what_the_kubelet_writes_is_read_only() -> None:
    for volume in ({"secret": {"secretName": "s"}}, {"configMap": {"name": "c"}}):
        assert mounted(volume).containers[0].mounts[0].read_only


def test_modes_and_items() -> None:
    source = {
        "name": "c",
        "defaultMode": 0o400,
        "items": [{"key": "k", "path": "a/./b", "mode": 0}],
    }
    (volume,) = mounted({"configMap": source}).volumes
    assert volume.default_mode == 0o400
    assert volume.config_maps[0].items == (KeyToPath("k", "a/b", 0),)


@pytest.mark.parametrize(
    ("volume", "field"),
    [
        ({"configMap": {"name": "c", "defaultMode": 0o1000}}, "configMap.defaultMode"),
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "../k"}]}},
            "configMap.items[0].path",
        ),
        ({"secret": {"items": [{"key": "k", "path": "/k"}]}}, "secret.items[0].path"),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.nodeName"}}]}},
            "downwardAPI.items[0].fieldRef.fieldPath",
        ),
        ({"downwardAPI": {"items": [{"path": "p"}]}}, "downwardAPI.items[0]"),
        ({"emptyDir": {"sizeLimit": "x"}}, "emptyDir.sizeLimit"),
        ({"hostPath": {"path": "/x", "type": "Fifo"}}, "hostPath.type"),
        ({"projected": {"sources": [{}]}}, "projected.sources[0]"),
        ({"ephemeral": {}}, "ephemeral"),
        ({"image": {"reference": "x"}}, "image"),
    ],
)
def test_volumes_that_cannot_be(volume: dict[str, Any], field: str) -> None:
    with pytest.raises(AdmissionError) as caught:
        mounted(volume)
    assert caught.value.field == f"spec.volumes[0].{field}"


@pytest.mark.parametrize(
    ("env", "text", "sub_path"),
    [
        ([{"name": "A", "value": "x"}], "$(A)/y", "x/y"),
        ([{"name": "A", "value": "$$(B)"}], "$(A)", "$(B)"),
        (
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "$(A)",
            "melt-x7k2p",
        ),
    ],
)
def test_sub_path_expressions(env: list[dict[str, Any]], text: str, sub_path: str) -> None:
    mounts = [{"name": "v", "mountPath": "/v", "subPathExpr": text}]
    container = {"env": env, "volumeMounts": mounts}
    result = plan(a_pod(container=container, spec={"volumes": [{"name": "v", "emptyDir": {}}]}))
    assert result.containers[0].mounts[0].sub_path == sub_path
    assert not result.containers[0].mounts[0].sub_path_expr


LABEL = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}


@pytest.mark.parametrize(
    ("container", "text"),
    [
        ({"env": [LABEL]}, "$(A)"),
        ({"env": [LABEL, {"name": "B", "value": "$(A)"}]}, "$(B)"),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, "$(A)"),
        ({}, "$(A)"),
        ({"env": [{"name": "A", "value": "../x"}]}, "$(A)"),
        ({"env": [{"name": "A", "value": "/x"}]}, "$(A)"),
    ],
)
def test_sub_path_expressions_that_wait_for_the_start(container: dict[str, Any], text: str) -> None:
    mounts = [{"name": "v", "mountPath": "/v", "subPathExpr": text}]
    pod = a_pod(
        container=container | {"volumeMounts": mounts},
        spec={"volumes": [{"name": "v", "emptyDir": {}}]},
    )
    (planned,) = plan(pod).containers
    assert planned.late
    assert planned.mounts == (VolumeMount("v", "/v", False, "", text),)


def test_a_mount_of_nothing() -> None:
    mounts = [{"name": "no", "mountPath": "/v"}]
    assert refusal(a_pod(container={"volumeMounts": mounts})).field == (
        "spec.containers[0].volumeMounts[0].name"
    )


def test_a_windows_path_or_a_symlink_named_like_a_flag_is_only_a_path() -> None:
    assert mounted({"emptyDir": {}}, subPath="-rf *").containers[0].mounts[0].sub_path == "-rf *"


@given(st.text(max_size=30))
def test_any_host_path_is_clean_or_refused(path: str) -> None:
    try:
        (volume,) = mounted({"hostPath": {"path": path}}).host_paths
    except AdmissionError:
        return
    assert volume.path.startswith("/")
    assert ".." not in volume.path.split("/")
    assert not (volume.path + "/").startswith("/home/alice/.hpk/")
