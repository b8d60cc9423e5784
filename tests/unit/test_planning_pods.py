"""Whole Pods: what passes admission, what is refused under which field, what the plan says."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from hpk.model.errors import AdmissionError
from hpk.model.job import Partition
from hpk.model.plan import (
    ConfigMapSource,
    DownwardItem,
    ImageConfig,
    ImagePlan,
    KeyToPath,
    MpiPlan,
    PodPlan,
    ProjectedVolume,
    RestartPolicy,
    TokenSource,
    VolumeMount,
)
from hpk.planning.admission import admit_pod
from hpk.planning.plan import plan_pod
from hpk.planning.site import SiteSettings

GIB = 1 << 30
MIB = 1 << 20
SITE = SiteSettings()
FLAGS = "metadata.annotations[slurm-job.hpk.io/flags]"
MAIN = Partition(
    name="main",
    is_default=True,
    is_up=True,
    nodes=("n1", "n2", "n3", "n4"),
    max_time_s=86400,
    default_time_s=3600,
    default_memory_per_cpu_bytes=None,
    default_memory_per_node_bytes=None,
    total_cpus=16,
    total_memory_bytes=32 * GIB,
    gpus=8,
    max_node_cpus=4,
    max_node_memory_bytes=8 * GIB,
    max_node_gpus=2,
    features=(),
)
IMAGE = ImagePlan(
    reference="registry.lab:5000/busybox",
    image_id="registry.lab:5000/busybox@sha256:0",
    path="/cache/0.sif",
    config=ImageConfig(entrypoint=("/entry",), cmd=("cmd",), working_dir="/work", user="7:8"),
)
TOKEN_VOLUME = {
    "name": "kube-api-access-x7k2p",
    "projected": {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {
                "configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
            {
                "downwardAPI": {
                    "items": [
                        {
                            "path": "namespace",
                            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                        }
                    ]
                }
            },
        ],
    },
}


def a_pod(
    *,
    annotations: dict[str, str] | None = None,
    container: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A Pod as a Job makes it and the API server completes it, with changes."""
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "melt-x7k2p",
            "generateName": "melt-",
            "namespace": "default",
            "uid": "5d0c1f9e-0000-4000-8000-000000000001",
            "resourceVersion": "42",
            "generation": 1,
            "labels": {"batch.kubernetes.io/job-name": "melt"},
            "annotations": annotations or {},
            "finalizers": ["batch.kubernetes.io/job-tracking"],
            "ownerReferences": [{"kind": "Job", "name": "melt", "controller": True}],
        },
        "spec": {
            "volumes": [TOKEN_VOLUME],
            "containers": [
                {
                    "name": "main",
                    "image": "registry.lab:5000/busybox",
                    "imagePullPolicy": "Always",
                    "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "volumeMounts": [
                        {
                            "name": "kube-api-access-x7k2p",
                            "readOnly": True,
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                        }
                    ],
                }
                | (container or {})
            ],
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "nodeName": "main",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}
            ],
            "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
            "enableServiceLinks": True,
        }
        | (spec or {}),
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }
    return copy.deepcopy(pod)


def plan(pod: dict[str, Any], *, partition: Partition = MAIN, site: SiteSettings = SITE) -> PodPlan:
    return plan_pod(pod, images={"main": IMAGE}, partition=partition, site=site)


def options(result: PodPlan) -> dict[str, str | None]:
    return {option.name: option.value for option in result.options}


def refusal(pod: dict[str, Any], *, partition: Partition = MAIN) -> AdmissionError:
    with pytest.raises(AdmissionError) as caught:
        plan(pod, partition=partition)
    return caught.value


def test_a_pod_as_the_api_server_completes_it() -> None:
    result = plan(a_pod())
    (container,) = result.containers
    assert str(result.pod) == "default/melt-x7k2p"
    assert container.argv == ("/entry", "cmd")
    assert (container.uid, container.gid, container.working_dir) == (7, 8, "/work")
    assert container.mounts == (
        VolumeMount("kube-api-access-x7k2p", "/var/run/secrets/kubernetes.io/serviceaccount", True),
    )
    assert result.volumes == (
        ProjectedVolume(
            name="kube-api-access-x7k2p",
            default_mode=0o644,
            tokens=(TokenSource(path="token", audience="", expiration_s=3607),),
            config_maps=(
                ConfigMapSource("kube-root-ca.crt", (KeyToPath("ca.crt", "ca.crt"),), False),
            ),
            downward=(DownwardItem("namespace", "default"),),
            order=("tokens", "config_maps", "downward"),
        ),
    )
    assert result.restart_policy is RestartPolicy.NEVER
    assert (result.runtime, result.service_account) == ("apptainer", "default")
    assert options(result) == {"time": "1-00:00:00", "no-requeue": None}


UNSUPPORTED_SPEC: list[tuple[str, Any, str]] = [
    ("ephemeralContainers", [{"name": "i"}], "spec.ephemeralContainers"),
    ("hostPID", True, "spec.hostPID"),
    ("hostIPC", True, "spec.hostIPC"),
    ("imagePullSecrets", [{"name": "s"}], "spec.imagePullSecrets"),
    ("runtimeClassName", "r", "spec.runtimeClassName"),
    ("overhead", {"cpu": "1"}, "spec.overhead"),
    ("resources", {"limits": {"cpu": "1"}}, "spec.resources"),
    ("resourceClaims", [{"name": "r"}], "spec.resourceClaims"),
    ("schedulingGates", [{"name": "g"}], "spec.schedulingGates"),
    ("dnsConfig", {"nameservers": ["1.1.1.1"]}, "spec.dnsConfig"),
    ("dnsPolicy", "None", "spec.dnsPolicy"),
    ("os", {"name": "windows"}, "spec.os.name"),
    ("securityContext", {"fsGroup": 1}, "spec.securityContext.fsGroup"),
    (
        "affinity",
        {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution",
    ),
    (
        "securityContext",
        {"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}},
        "spec.securityContext.appArmorProfile.type",
    ),
    ("securityContext", {"sysctls": [{"name": "a"}]}, "spec.securityContext.sysctls"),
    (
        "securityContext",
        {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}},
        "spec.securityContext.seccompProfile.type",
    ),
    ("volumes", [{"name": "v", "nfs": {"path": "/"}}], "spec.volumes[0].nfs"),
    ("volumes", [{"name": "v", "csi": {}}], "spec.volumes[0].csi"),
    (
        "volumes",
        [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        "spec.volumes[0].persistentVolumeClaim",
    ),
    (
        "volumes",
        [{"name": "v", "emptyDir": {"medium": "HugePages"}}],
        "spec.volumes[0].emptyDir.medium",
    ),
    (
        "volumes",
        [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"name": "s"}}]}}],
        "spec.volumes[0].projected.sources[0].clusterTrustBundle",
    ),
    (
        "initContainers",
        [{"name": "i", "image": "x", "startupProbe": {"exec": {}}}],
        "spec.initContainers[0].startupProbe",
    ),
    (
        "initContainers",
        [{"name": "i", "image": "x", "restartPolicy": "Never"}],
        "spec.initContainers[0].restartPolicy",
    ),
    ("somethingOfTheFuture", {"a": 1}, "spec.somethingOfTheFuture"),
]


@pytest.mark.parametrize(("name", "value", "field"), UNSUPPORTED_SPEC)
def test_unsupported_fields_of_the_spec(name: str, value: object, field: str) -> None:
    error = refusal(a_pod(spec={name: value}))
    assert (error.reason, error.field) == ("UnsupportedField", field)
    assert str(error).startswith(f"{field}: ")


UNSUPPORTED_CONTAINER: list[tuple[str, Any, str]] = [
    ("livenessProbe", {"grpc": {"port": 80, "mode": "TLS"}}, "livenessProbe.grpc.mode"),
    (
        "readinessProbe",
        {"httpGet": {"port": 80, "protocol": "HTTP2"}},
        "readinessProbe.httpGet.protocol",
    ),
    ("lifecycle", {"preStop": {"tcpSocket": {"port": 1}}}, "lifecycle.preStop.tcpSocket"),
    ("lifecycle", {"stopSignal": "SIGUSR1"}, "lifecycle.stopSignal"),
    (
        "env",
        [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
        "env[0].valueFrom.fieldRef.fieldPath",
    ),
    (
        "env",
        [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "x"}}}],
        "env[0].valueFrom.fileKeyRef",
    ),
    ("securityContext", {"capabilities": {"add": ["A"]}}, "securityContext.capabilities.add"),
    (
        "securityContext",
        {"allowPrivilegeEscalation": True},
        "securityContext.allowPrivilegeEscalation",
    ),
    ("stdin", True, "stdin"),
    ("tty", True, "tty"),
    ("volumeDevices", [{"name": "d"}], "volumeDevices"),
    ("restartPolicy", "Always", "restartPolicy"),
    ("securityContext", {"privileged": True}, "securityContext.privileged"),
    ("resources", {"limits": {"hugepages-2Mi": "4Mi"}}, "resources.limits[hugepages-2Mi]"),
    (
        "resources",
        {"requests": {"ephemeral-storage": "1"}},
        "resources.requests[ephemeral-storage]",
    ),
    ("resources", {"claims": [{"name": "c"}]}, "resources.claims"),
    ("ports", [{"containerPort": 80, "hostIP": "1.2.3.4"}], "ports[0].hostIP"),
    ("somethingOfTheFuture", "x", "somethingOfTheFuture"),
]


@pytest.mark.parametrize(("name", "value", "field"), UNSUPPORTED_CONTAINER)
def test_unsupported_fields_of_the_container(name: str, value: object, field: str) -> None:
    error = refusal(a_pod(container={name: value}))
    assert (error.reason, error.field) == ("UnsupportedField", f"spec.containers[0].{field}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stdin", False),
        ("livenessProbe", None),
        ("env", []),
        ("securityContext", {}),
        ("securityContext", {"privileged": False, "allowPrivilegeEscalation": False}),
        ("ports", [{"containerPort": 80, "protocol": "TCP", "name": "http"}]),
        ("ports", [{"containerPort": 80, "hostPort": 80}]),
        ("resizePolicy", [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
    ],
)
def test_fields_that_say_nothing_pass(name: str, value: object) -> None:
    admit_pod(a_pod(container={name: value}), SITE)


@pytest.mark.parametrize(
    ("container", "field"),
    [
        ({"command": ["a", "b\0c"]}, "spec.containers[0].command[1]"),
        ({"args": ["\0"]}, "spec.containers[0].args[0]"),
        ({"env": [{"name": "A", "value": "\0"}]}, "spec.containers[0].env[0].value"),
        ({"env": [{"name": "A\0", "value": ""}]}, "spec.containers[0].env[0].name"),
        ({"workingDir": "/a\0"}, "spec.containers[0].workingDir"),
        ({"workingDir": "a"}, "spec.containers[0].workingDir"),
        ({"command": "sh"}, "spec.containers[0].command"),
        ({"command": [1]}, "spec.containers[0].command[0]"),
        ({"env": {"A": "1"}}, "spec.containers[0].env"),
        ({"env": ["A"]}, "spec.containers[0].env[0]"),
        (
            {"ports": [{"containerPort": 80, "hostPort": 81}]},
            "spec.containers[0].ports[0].hostPort",
        ),
        ({"resources": {"limits": {"cpu": "x"}}}, "spec.containers[0].resources.limits[cpu]"),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "x"}]},
            "spec.containers[0].volumeMounts[0].mountPath",
        ),
    ],
)
def test_values_that_cannot_be(container: dict[str, Any], field: str) -> None:
    error = refusal(a_pod(container=container))
    assert (error.reason, error.field) == ("InvalidField", field)


def test_hostile_text_stays_what_it_is() -> None:
    nasty = "a 'b' \"c\" $(touch /x) `touch /x` \n#SBATCH --uid=0\r\t\\ é 中 \x1b[0m"
    container = {"command": [nasty], "args": [nasty], "env": [{"name": "A", "value": nasty}]}
    (result,) = plan(a_pod(container=container)).containers
    assert result.argv == (nasty, nasty)
    assert result.env[-1].value == nasty


@pytest.mark.parametrize("prefix", ["slurm.hpk.io", "slurm-job.knoc.io", "slurm-job.vk.io"])
def test_annotations_of_all_prefixes(prefix: str) -> None:
    result = plan(a_pod(annotations={f"{prefix}/flags": "--nice=5", f"{prefix}/mpi-flag": "true"}))
    assert options(result)["nice"] == "5"
    assert result.containers[0].mpi == MpiPlan("pmix")


def test_the_same_annotation_twice() -> None:
    same = {"slurm-job.hpk.io/flags": "-n2", "slurm-job.vk.io/flags": "-n2", "other/flags": "x"}
    assert options(plan(a_pod(annotations=same)))["ntasks"] == "2"
    error = refusal(a_pod(annotations=same | {"slurm-job.vk.io/flags": "-n3"}))
    assert (error.reason, error.field) == (
        "InvalidAnnotation",
        "metadata.annotations[slurm-job.vk.io/flags]",
    )


@pytest.mark.parametrize(
    ("annotations", "field", "part"),
    [
        ({"slurm-job.hpk.io/flag": "-n2"}, "slurm-job.hpk.io/flag", "did you mean flags?"),
        ({"slurm-job.hpk.io/runtime": "docker"}, "slurm-job.hpk.io/runtime", "apptainer"),
        ({"slurm-job.hpk.io/mpi": "gpi"}, "slurm-job.hpk.io/mpi", "pmix, none"),
        ({"slurm-job.hpk.io/mpi": "pmix"}, "slurm-job.hpk.io/mpi", "mpi-flags"),
        ({"slurm-job.hpk.io/mpi-flags": "-x A"}, "slurm-job.hpk.io/mpi-flags", "-x"),
        ({"slurm-job.hpk.io/flags": "-p debug"}, "slurm-job.hpk.io/flags", "nodeSelector"),
        ({"slurm-job.hpk.io/flags": "-t 2-0"}, "slurm-job.hpk.io/flags", "1-00:00:00"),
        ({"slurm-job.hpk.io/flags": "-N 5"}, "slurm-job.hpk.io/flags", "has 4"),
        ({"anything": "a\0b"}, "anything", "NUL"),
    ],
)
def test_annotations_that_are_refused(annotations: dict[str, str], field: str, part: str) -> None:
    error = refusal(a_pod(annotations=annotations))
    assert error.field == f"metadata.annotations[{field}]"
    assert part in str(error)


def test_the_partition_may_agree() -> None:
    assert "partition" not in options(plan(a_pod(annotations={"slurm-job.hpk.io/flags": "-pmain"})))


def resources(**amounts: str) -> dict[str, Any]:
    named = {name.replace("_", "/"): amount for name, amount in amounts.items()}
    return {"resources": {"requests": named, "limits": named}}


def flagged(flags: str, container: dict[str, Any]) -> dict[str, str | None]:
    result = options(
        plan(a_pod(annotations={"slurm-job.hpk.io/flags": flags}, container=container))
    )
    return {
        name: value
        for name, value in result.items()
        if name in ("cpus-per-task", "mem", "mem-per-cpu", "gres", "gpus-per-task")
    }


CPU_AND_MEMORY = resources(cpu="1500m", memory="1Gi")


@pytest.mark.parametrize(
    ("flags", "container", "expected"),
    [
        ("", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "1024M"}),
        ("-n4 --ntasks-per-node=2", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "2048M"}),
        ("-n2 -N1", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "2048M"}),
        ("-n4", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem-per-cpu": "512M"}),
        ("-n4 -N2-4", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem-per-cpu": "512M"}),
        ("-N2", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem": "1024M"}),
        ("-c1 --mem=3G", CPU_AND_MEMORY, {"cpus-per-task": "1", "mem": "3G"}),
        ("--mem-per-cpu=1G", CPU_AND_MEMORY, {"cpus-per-task": "2", "mem-per-cpu": "1G"}),
        ("", resources(memory="200000001"), {"mem": "191M"}),
        ("", resources(memory="16Mi"), {"mem": "96M"}),
        ("", resources(memory="0", cpu="0"), {}),
        ("", resources(cpu="10m"), {"cpus-per-task": "1"}),
        ("", {"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"gres": "gpu:2"}),
        ("-n2 -N2", {"resources": {"limits": {"amd.com/gpu": 1}}}, {"gpus-per-task": "1"}),
        (
            "-n4 --ntasks-per-node=2",
            {"resources": {"limits": {"amd.com/gpu": "1"}}},
            {"gres": "gpu:2"},
        ),
        ("--gpus=1", {"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {}),
        (
            "--gres=nvme:1",
            {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
            {"gres": "nvme:1,gpu:1"},
        ),
        ("--gres=gpu:1", {"resources": {"limits": {"nvidia.com/gpu": "2"}}}, {"gres": "gpu:1"}),
        (
            "",
            {"resources": {"requests": {"memory": "1Gi", "cpu": "1"}, "limits": {"memory": "2Gi"}}},
            {"cpus-per-task": "1", "mem": "2048M"},
        ),
        ("", {"resources": {"requests": {"memory": "1Gi"}}}, {"mem": "1024M"}),
    ],
)
def test_resources_become_options(
    flags: str, container: dict[str, Any], expected: dict[str, str]
) -> None:
    assert flagged(flags, container) == expected


def test_memory_nobody_asks_for_is_the_sites() -> None:
    site = dataclasses.replace(SITE, default_memory_bytes=700 * MIB)
    assert options(plan(a_pod(), site=site))["mem"] == "700M"


@pytest.mark.parametrize(
    ("flags", "container", "reason", "field"),
    [
        ("", resources(cpu="5"), "OutOfcpu", "spec.containers[0].resources.requests[cpu]"),
        ("", resources(memory="9Gi"), "OutOfmemory", "spec.containers[0].resources.limits[memory]"),
        (
            "",
            {"resources": {"limits": {"nvidia.com/gpu": "3"}}},
            "OutOfnvidia.com/gpu",
            "spec.containers[0].resources.limits",
        ),
        (
            "",
            {"resources": {"limits": {"amd.com/gpu": "3"}}},
            "OutOfamd.com/gpu",
            "spec.containers[0].resources.limits",
        ),
        ("-c5", {}, "OutOfcpu", FLAGS),
        ("-n17", {}, "OutOfcpu", FLAGS),
        ("--ntasks-per-node=5 -n10", {}, "OutOfcpu", FLAGS),
        ("-n4 --ntasks-per-node=4", resources(memory="3Gi"), "OutOfmemory", None),
        ("--mem=9000", {}, "OutOfmemory", FLAGS),
        ("-c2 --mem-per-cpu=5G", {}, "OutOfmemory", FLAGS),
        ("--gres=gpu:a100:3", {}, "OutOfnvidia.com/gpu", FLAGS),
        ("--gpus-per-node=3", {}, "OutOfnvidia.com/gpu", FLAGS),
    ],
)
def test_more_than_any_node_has(
    flags: str, container: dict[str, Any], reason: str, field: str | None
) -> None:
    error = refusal(a_pod(annotations={"slurm-job.hpk.io/flags": flags}, container=container))
    assert error.reason == reason
    assert field is None or error.field == field
    assert "Node didn't have enough resource: " in error.message


def test_overcommitted_tasks_need_no_cpus_of_their_own() -> None:
    assert plan(a_pod(annotations={"slurm-job.hpk.io/flags": "-n40 -O"}))


@pytest.mark.parametrize(
    ("partition", "spec", "flags", "time"),
    [
        (MAIN, {}, "", "1-00:00:00"),
        (MAIN, {}, "-t 5", "5"),
        (MAIN, {"activeDeadlineSeconds": 60}, "", "0-00:12:00"),
        (MAIN, {"activeDeadlineSeconds": 10**6}, "", "1-00:00:00"),
        (dataclasses.replace(MAIN, max_time_s=None), {}, "", "UNLIMITED"),
        (dataclasses.replace(MAIN, max_time_s=None, default_time_s=None), {}, "", None),
    ],
)
def test_time_limits(
    partition: Partition, spec: dict[str, Any], flags: str, time: str | None
) -> None:
    pod = a_pod(annotations={"slurm-job.hpk.io/flags": flags}, spec=spec)
    assert options(plan(pod, partition=partition)).get("time") == time


def test_a_site_may_leave_time_to_slurm() -> None:
    site = dataclasses.replace(SITE, use_partition_max_time=False)
    assert "time" not in options(plan(a_pod(), site=site))


def test_launcher_options_imply_tasks_where_the_flags_say_nothing() -> None:
    annotations = {"slurm-job.hpk.io/mpi-flags": "-np 4 --map-by ppr:2:node --bind-to core"}
    result = plan(a_pod(annotations=annotations))
    assert options(result)["ntasks"] == "4"
    assert options(result)["ntasks-per-node"] == "2"
    assert result.containers[0].mpi == MpiPlan(
        "pmix", ("--ntasks=4", "--ntasks-per-node=2", "--cpu-bind=cores")
    )


def test_cpus_of_a_rank_are_asked_for_where_the_flags_say_nothing() -> None:
    asked = {"slurm-job.hpk.io/mpi-flags": "-np 2 --map-by ppr:1:node:PE=2"}
    result = plan(a_pod(annotations=asked))
    assert options(result)["cpus-per-task"] == "2"
    assert result.containers[0].mpi == MpiPlan(
        "pmix", ("--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=2")
    )
    flags = {"slurm-job.hpk.io/flags": "--cpus-per-task=3"}
    assert options(plan(a_pod(annotations={**asked, **flags})))["cpus-per-task"] == "3"


def test_more_ranks_than_tasks_are_refused() -> None:
    annotations = {"slurm-job.hpk.io/flags": "-n2", "slurm-job.hpk.io/mpi-flags": "-np 4"}
    error = refusal(a_pod(annotations=annotations))
    assert error.field == "metadata.annotations[slurm-job.hpk.io/mpi-flags]"


@pytest.mark.parametrize("value", ["false", "no", "0"])
def test_mpi_switched_off(value: str) -> None:
    result = plan(a_pod(annotations={"slurm-job.hpk.io/mpi-flags": value}))
    assert result.containers[0].mpi is None


def test_mpi_launcher_none() -> None:
    annotations = {"slurm-job.hpk.io/mpi-flags": "true", "slurm-job.hpk.io/mpi": "none"}
    assert plan(a_pod(annotations=annotations)).containers[0].mpi is None
