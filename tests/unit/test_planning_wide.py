"""Several containers, their variables, users and volumes: what is planned, what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpk.model.errors import AdmissionError
from hpk.model.plan import (
    EmptyDirVolume,
    EnvKind,
    EnvSource,
    EnvVar,
    HostPathVolume,
    ImageConfig,
    ImagePlan,
    KeyToPath,
    PodPlan,
    VolumeMount,
)
from hpk.planning.admission import admit_pod
from hpk.planning.downward import format_map, go_quote, metadata_field
from hpk.planning.plan import plan_pod
from hpk.planning.site import SiteSettings
from tests.unit.test_planning_pods import GIB, IMAGE, MAIN, a_pod, options

PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n"
IMAGES = {
    "main": IMAGE,
    "two": IMAGE,
    "web": ImagePlan("w", "w@sha256:1", "/w.sif", ImageConfig(("w",), user="web"), PASSWD),
    "root": ImagePlan("r", "r@sha256:1", "/r.sif", ImageConfig(("r",)), PASSWD),
}
SITE = SiteSettings(own_directories=("/home/alice/.hpk",))


def plan(pod: dict[str, Any], site: SiteSettings = SITE) -> PodPlan:
    names = [c["name"] for c in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]]
    images = {name: IMAGES.get(name, IMAGE) for name in names}
    return plan_pod(pod, images=images, partition=MAIN, site=site)


def refusal(pod: dict[str, Any]) -> AdmissionError:
    with pytest.raises(AdmissionError) as caught:
        plan(pod)
    return caught.value


def with_others(
    *others: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **changes: Any
) -> dict[str, Any]:
    pod = a_pod(**changes)
    pod["spec"]["containers"] += [{"image": "x", **other} for other in others]
    if init:
        pod["spec"]["initContainers"] = [{"image": "x", **item} for item in init]
    return pod


def asks(cpu: str = "", memory: str = "", **others: str) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": memory, **others}
    return {"resources": {"requests": {k: v for k, v in amounts.items() if v}}}


# Containers


def test_containers_keep_their_order_and_sidecars_are_told_apart() -> None:
    result = plan(
        with_others(
            {"name": "two"},
            init=({"name": "first"}, {"name": "side", "restartPolicy": "Always"}),
        )
    )
    assert [c.name for c in result.containers] == ["main", "two"]
    assert [(c.name, c.restart_always) for c in result.init_containers] == [
        ("first", False),
        ("side", True),
    ]


@pytest.mark.parametrize(("first", "ranks"), [("a", "a"), ("main", "main")])
def test_the_ranks_are_the_main_containers(first: str, ranks: str) -> None:
    pod = with_others({"name": "b"}, annotations={"slurm-job.hpk.io/mpi-flags": "true"})
    pod["spec"]["containers"][0]["name"] = first
    result = plan(pod)
    assert [c.name for c in result.containers if c.mpi is not None] == [ranks]


def test_a_later_container_named_main_is_the_main_one() -> None:
    pod = a_pod(annotations={"slurm-job.hpk.io/mpi-flags": "true"})
    pod["spec"]["containers"].insert(0, {"name": "wait", "image": "x"})
    assert [c.mpi is not None for c in plan(pod).containers] == [False, True]


def test_names_that_would_leave_their_directory_are_refused() -> None:
    assert refusal(with_others({"name": "../x"})).field == "spec.containers[1].name"
    assert refusal(with_others({"name": "main"})).field == "spec.containers[1].name"
    volume = {"name": "../x", "emptyDir": {}}
    assert refusal(a_pod(spec={"volumes": [volume]}, container={"volumeMounts": []})).field == (
        "spec.volumes[0].name"
    )


# Resources


@pytest.mark.parametrize(
    ("flags", "main", "others", "init", "expected"),
    [
        # Those that run together are added up, then rounded up.
        (
            "",
            asks("500m", "1Gi"),
            [asks("600m", "1Gi")],
            [],
            {"cpus-per-task": "2", "mem": "2048M"},
        ),
        ("", asks("400m"), [asks("600m")], [], {"cpus-per-task": "1"}),
        # An init container alone, where it needs more.
        ("", asks("1", "1Gi"), [], [asks("3", "2Gi")], {"cpus-per-task": "3", "mem": "2048M"}),
        ("", asks("2", "3Gi"), [], [asks("1", "2Gi")], {"cpus-per-task": "2", "mem": "3072M"}),
        # A sidecar counts beside the containers, and beside the init containers after it.
        (
            "",
            asks("1", "1Gi"),
            [],
            [asks("1", "1Gi") | {"restartPolicy": "Always"}, asks("3", "1Gi")],
            {"cpus-per-task": "4", "mem": "2048M"},
        ),
        (
            "",
            asks("1", "1Gi"),
            [],
            [asks("3", "3Gi"), asks("1", "1Gi") | {"restartPolicy": "Always"}],
            {"cpus-per-task": "3", "mem": "3072M"},
        ),
        # The main container per task, the others once.
        (
            "-n4 --ntasks-per-node=2",
            asks("1", "1Gi"),
            [asks("100m", "64Mi")],
            [],
            {"cpus-per-task": "1", "mem": "2112M"},
        ),
        (
            "-n2 -N1",
            asks("1", "1Gi"),
            [asks("2", "1Gi")],
            [],
            {"cpus-per-task": "2", "mem": "3072M"},
        ),
        (
            "-n4",
            asks("1", "1Gi"),
            [asks("", "1Gi")],
            [],
            {"cpus-per-task": "1", "mem-per-cpu": "2048M"},
        ),
        # One that says nothing of memory adds nothing, and takes nothing away.
        ("", asks("", "1Gi"), [{}], [], {"mem": "1024M"}),
        ("", {}, [asks("", "1Gi")], [], {}),
        (
            "-n4 --ntasks-per-node=2",
            {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
            [],
            [],
            {"gres": "gpu:2"},
        ),
        ("", {}, [{"resources": {"limits": {"amd.com/gpu": "1"}}}], [], {"gres": "gpu:1"}),
    ],
)
def test_the_effective_request(
    flags: str,
    main: dict[str, Any],
    others: list[dict[str, Any]],
    init: list[dict[str, Any]],
    expected: dict[str, str],
) -> None:
    pod = with_others(
        *({"name": f"o{i}", **item} for i, item in enumerate(others)),
        init=tuple({"name": f"i{i}", **item} for i, item in enumerate(init)),
        annotations={"slurm-job.hpk.io/flags": flags},
        container=main,
    )
    found = options(plan(pod))
    names = ("cpus-per-task", "mem", "mem-per-cpu", "gres", "gpus-per-task")
    assert {name: found[name] for name in names if name in found} == expected


def test_a_main_container_that_says_nothing_has_slurms_default_beside_the_others() -> None:
    partition = dataclasses.replace(MAIN, default_memory_per_node_bytes=GIB)
    pod = with_others({"name": "two", **asks("", "1Gi")})
    result = plan_pod(pod, images=IMAGES, partition=partition, site=SITE)
    assert options(result)["mem"] == "2048M"


def test_two_kinds_of_gpu_are_refused() -> None:
    pod = with_others({"name": "two", "resources": {"limits": {"b.com/gpu": "1"}}})
    pod["spec"]["containers"][0] |= {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    site = dataclasses.replace(SITE, gpus={"nvidia.com/gpu": "gpu", "b.com/gpu": "gpu:b"})
    with pytest.raises(AdmissionError) as caught:
        plan(pod, site)
    assert caught.value.field == "spec.containers[1].resources.limits"


# Variables


def variables(*env: dict[str, Any], **container: Any) -> Any:
    return plan(a_pod(container={"env": list(env), **container})).containers[0]


def test_what_is_known_and_stays_is_no_reason_to_wait() -> None:
    container = variables(
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "SA", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}},
        {
            "name": "MIB",
            "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
        },
        {
            "name": "CPU",
            "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}},
        },
        {"name": "ALL", "value": "$(NAME).$(NODE)"},
        resources={"requests": {"cpu": "1500m"}, "limits": {"memory": "1Gi"}},
    )
    assert not container.late
    assert {v.name: v.value for v in container.env} | {"PATH": ""} == {
        "PATH": "",
        "NAME": "melt-x7k2p",
        "NODE": "main",
        "SA": "default",
        "MIB": "1024",
        "CPU": "1500",
        "ALL": "melt-x7k2p.main",
    }


@pytest.mark.parametrize(
    ("resource", "divisor", "flags", "value"),
    [
        # Where there is no limit: what the job has on its first node.
        ("limits.cpu", "1", "", "1"),
        ("limits.cpu", "0", "-c3", "3"),
        ("limits.cpu", "1", "-c2 -n4 --ntasks-per-node=2", "4"),
        ("limits.memory", "1Mi", "--mem=512", "512"),
        ("limits.memory", "1Gi", "", "8"),
        ("requests.cpu", "1", "", "0"),
        ("requests.memory", "1", "", "0"),
    ],
)
def test_resource_fields(resource: str, divisor: str, flags: str, value: str) -> None:
    source = {"resourceFieldRef": {"resource": resource, "divisor": divisor}}
    pod = a_pod(
        annotations={"slurm-job.hpk.io/flags": flags},
        container={"env": [{"name": "V", "valueFrom": source}]},
    )
    assert plan(pod).containers[0].env[-1] == EnvVar("V", value)


@pytest.mark.parametrize(
    ("value_from", "source"),
    [
        (
            {"configMapKeyRef": {"name": "c", "key": "k"}},
            EnvSource(EnvKind.CONFIG_MAP_KEY, "c", "k"),
        ),
        (
            {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
            EnvSource(EnvKind.SECRET_KEY, "s", "k", optional=True),
        ),
        (
            {"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}},
            EnvSource(EnvKind.FIELD, key="metadata.labels['a.b/c']"),
        ),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, EnvSource(EnvKind.FIELD, key="status.podIP")),
    ],
)
def test_late_variables_stay_as_they_are_written(
    value_from: dict[str, Any], source: EnvSource
) -> None:
    container = variables(
        {"name": "V", "valueFrom": value_from},
        {"name": "W", "value": "$(V)"},
        command=["run", "$(W)"],
    )
    assert container.late
    assert container.env[-2:] == (EnvVar("V", "", source), EnvVar("W", "$(V)"))
    assert container.argv == ("run", "$(W)")


def test_the_images_words_are_never_expanded() -> None:
    image = ImagePlan("i", "i@sha256:1", "/i.sif", ImageConfig(("sh", "$(A)"), ("$$(A)", "$A")))
    pod = a_pod(container={"envFrom": [{"secretRef": {"name": "s"}}]})
    (container,) = plan_pod(pod, images={"main": image}, partition=MAIN, site=SITE).containers
    assert container.argv == ("sh", "$$(A)", "$$$$(A)", "$$A")


def test_env_from() -> None:
    sources = [
        {"prefix": "P_", "configMapRef": {"name": "c"}},
        {"secretRef": {"name": "s", "optional": True}},
    ]
    container = variables(envFrom=sources)
    assert container.env_from == (
        EnvSource(EnvKind.CONFIG_MAP, "c", prefix="P_"),
        EnvSource(EnvKind.SECRET, "s", optional=True),
    )


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}, "fieldRef.fieldPath"),
        ({"valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}, "fieldRef.fieldPath"),
        (
            {"valueFrom": {"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}},
            "fieldRef.apiVersion",
        ),
        (
            {"valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}},
            "resourceFieldRef.resource",
        ),
        (
            {"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "x"}}},
            "resourceFieldRef.divisor",
        ),
        (
            {"valueFrom": {"resourceFieldRef": {"containerName": "no", "resource": "limits.cpu"}}},
            "resourceFieldRef.containerName",
        ),
        ({"valueFrom": {"secretKeyRef": {"name": "s"}}}, "secretKeyRef.key"),
    ],
)
def test_sources_that_cannot_be(item: dict[str, Any], field: str) -> None:
    error = refusal(a_pod(container={"env": [{"name": "V", **item}]}))
    assert error.field == f"spec.containers[0].env[0].valueFrom.{field}"


# Users


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


# Volumes


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


LABEL = {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}


@pytest.mark.parametrize(
    ("container", "text", "reason"),
    [
        ({"env": [LABEL]}, "$(A)", "UnsupportedField"),
        ({"env": [LABEL, {"name": "B", "value": "$(A)"}]}, "$(B)", "UnsupportedField"),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, "$(A)", "UnsupportedField"),
        ({}, "$(A)", "InvalidField"),
        ({"env": [{"name": "A", "value": "../x"}]}, "$(A)", "InvalidField"),
        ({"env": [{"name": "A", "value": ""}]}, "$(A)", "InvalidField"),
    ],
)
def test_sub_path_expressions_that_cannot_be(
    container: dict[str, Any], text: str, reason: str
) -> None:
    mounts = [{"name": "v", "mountPath": "/v", "subPathExpr": text}]
    pod = a_pod(
        container=container | {"volumeMounts": mounts},
        spec={"volumes": [{"name": "v", "emptyDir": {}}]},
    )
    error = refusal(pod)
    assert error.reason == reason
    assert error.field == "spec.containers[0].volumeMounts[0].subPathExpr"


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


# Fields


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1b\x7f", '"\\x00\\x1b\\x7f"'),
        ("é中😀", '"é中😀"'),
        ("\u00a0\u200b\U000e0001", '"\\u00a0\\u200b\\U000e0001"'),
    ],
)
def test_go_quoting(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted


def test_maps_are_sorted() -> None:
    assert format_map({"b": "2", "a": "1\n"}) == 'a="1\\n"\nb="2"'
    assert format_map({}) == ""


def test_metadata_fields() -> None:
    pod = {"metadata": {"labels": {"a": "1"}, "annotations": {"x'y']": "2"}}}
    assert metadata_field(pod, "metadata.labels['a']") == "1"
    assert metadata_field(pod, "metadata.labels['no']") == ""
    assert metadata_field(pod, "metadata.annotations['x'y']']") == "2"
    assert metadata_field(pod, "metadata.labels") == 'a="1"'


def test_admission_needs_no_image() -> None:
    admit_pod(with_others({"name": "two"}, init=({"name": "i"},)), SITE)
