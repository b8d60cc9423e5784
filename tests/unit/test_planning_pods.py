"""Whole Pods: what passes admission, what is refused under which field, what the plan says."""

from __future__ import annotations

from typing import Any

import pytest

from hpk.model.plan import (
    ConfigMapSource,
    DownwardItem,
    KeyToPath,
    ProjectedVolume,
    RestartPolicy,
    TokenSource,
    VolumeMount,
)
from hpk.planning.admission import admit_pod
from tests.planning import SITE, a_pod, options, plan, refusal, with_others


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
    ("resources", {"limits": {"cpu": "1"}}, "spec.resources"),
    ("resourceClaims", [{"name": "r"}], "spec.resourceClaims"),
    ("schedulingGates", [{"name": "g"}], "spec.schedulingGates"),
    ("dnsConfig", {"nameservers": ["1.1.1.1"]}, "spec.dnsConfig"),
    ("dnsPolicy", "None", "spec.dnsPolicy"),
    ("os", {"name": "windows"}, "spec.os.name"),
    (
        "securityContext",
        {"fsGroup": 1, "runAsGroup": 2},
        "spec.securityContext.fsGroup",
    ),
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
    (
        "securityContext",
        {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
        "spec.securityContext.sysctls[0].name",
    ),
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
        [{"name": "v", "projected": {"sources": [{"newerSource": {"name": "s"}}]}}],
        "spec.volumes[0].projected.sources[0].newerSource",
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
    ("stdin", "yes", "stdin"),
    ("tty", "yes", "tty"),
    ("volumeDevices", [{"name": "d"}], "volumeDevices"),
    ("restartPolicy", "Always", "restartPolicy"),
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
        ("stdin", True),
        ("stdinOnce", True),
        ("tty", True),
        ("livenessProbe", None),
        ("env", []),
        ("securityContext", {}),
        ("securityContext", {"privileged": False, "allowPrivilegeEscalation": False}),
        ("securityContext", {"privileged": True, "allowPrivilegeEscalation": True}),
        ("securityContext", {"capabilities": {"add": ["SYS_PTRACE"], "drop": ["ALL"]}}),
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


def test_containers_share_their_processes_where_the_pod_says_so() -> None:
    pod = a_pod()
    assert not plan(pod).shares_processes
    pod["spec"]["shareProcessNamespace"] = True
    assert plan(pod).shares_processes


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


def test_admission_needs_no_image() -> None:
    admit_pod(with_others({"name": "two"}, init=({"name": "i"},)), SITE)


def test_standard_input_and_terminal_are_planned() -> None:
    (plain,) = plan(a_pod()).containers
    assert (plain.stdin, plain.stdin_once, plain.tty) == (False, False, False)
    (asked,) = plan(a_pod(container={"stdin": True, "stdinOnce": True, "tty": True})).containers
    assert (asked.stdin, asked.stdin_once, asked.tty) == (True, True, True)
    (once,) = plan(a_pod(container={"stdinOnce": True})).containers
    assert (once.stdin, once.stdin_once) == (False, False)


@pytest.mark.parametrize("name", ["stdin", "tty"])
def test_ranks_read_nothing_and_have_no_terminal(name: str) -> None:
    error = refusal(
        a_pod(annotations={"slurm-job.hpk.io/mpi-flags": "-np 4"}, container={name: True})
    )
    assert (error.reason, error.field) == ("UnsupportedField", f"spec.containers[0].{name}")
