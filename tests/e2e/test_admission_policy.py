"""The API server refuses with admission's words, and never what admission accepts.

A real API server is asked, by dry runs: how it would store an object with the policy off, and
whether it takes it with the policy on.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootstrap import admission_policy
from bootstrap.api import TlsClient
from hpk.model.errors import AdmissionError
from hpk.planning.base.whitelist import walk
from hpk.planning.job.annotations import NO_SUCH_NAME, read_annotations
from hpk.planning.known_fields import SPEC
from tests.api_server import api_server
from tests.e2e.refusals import REFUSALS
from tests.waiting import eventually

Json = dict[str, Any]
EXAMPLES = 400
DENIED = "ValidatingAdmissionPolicy 'hpk-pods' with binding 'hpk-pods-deny' denied request: "


class Api:
    """The API server, and namespaces with the policy on and off."""

    def __init__(self, client: TlsClient) -> None:
        self.client = client

    def post(self, path: str, made: Json, *, dry_run: bool = True) -> tuple[int, Json]:
        query = "?dryRun=All" if dry_run else ""
        status, body = self.client.post(f"{path}{query}", made)
        answer: Json = json.loads(body)
        return status, answer

    def pods(self, namespace: str, made: Json) -> tuple[int, Json]:
        return self.post(f"/api/v1/namespaces/{namespace}/pods", made)

    def make_namespace(self, name: str, mode: str) -> None:
        meta: Json = {"name": name, "labels": {admission_policy.LABEL: mode} if mode else {}}
        self.post("/api/v1/namespaces", {"metadata": meta}, dry_run=False)
        account = {"metadata": {"name": "default"}}
        self.post(f"/api/v1/namespaces/{name}/serviceaccounts", account, dry_run=False)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One for all tests of this module, which change nothing of it."""
    loop = asyncio.new_event_loop()
    server = api_server(Path(tmp_path_factory.mktemp("api")))
    found = Api(loop.run_until_complete(server.__aenter__()))
    try:
        for path, manifest in admission_policy.manifests("deny"):
            found.client.apply(path, manifest)
        for name, mode in (("on", ""), ("warned", "warn"), ("off", "off")):
            found.make_namespace(name, mode)
        bad = _pod({"containers": [{"name": "main", "image": "x", **_REFUSED}]})
        eventually(lambda: found.pods("on", bad)[0] != 201, what="the policy is in force")
        eventually(lambda: found.pods("off", bad)[0] == 201, what="and off where it should be")
        yield found
    finally:
        loop.run_until_complete(server.__aexit__(None, None, None))
        loop.close()


_REFUSED: Json = {"ports": [{"containerPort": 80, "hostIP": "127.0.0.1"}]}


def _pod(spec: Json, annotations: dict[str, str] | None = None) -> Json:
    return {"metadata": {"name": "p", "annotations": annotations or {}}, "spec": spec}


def _first_refusal(pod: Json) -> str | None:
    """What the policy can know of what admission refuses; None if nothing. Remedies may differ."""
    try:
        walk(pod["spec"], "spec", SPEC)
        read_annotations(pod)
    except AdmissionError as error:
        is_known = error.field.startswith("spec") or NO_SUCH_NAME in error.message
        return error.message if is_known else None
    return None


def _told(answer: Json) -> list[str]:
    """The refusals that an answer names."""
    return str(answer["message"]).partition(DENIED)[2].split("; ")


# What a Pod may be made of: fields that are handled, that are not, and that say nothing.
_CONTAINER: tuple[Json, ...] = (
    {"tty": True},
    {"tty": False},
    {"stdin": True, "stdinOnce": True},
    {
        "env": [
            {"name": "A", "value": ""},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ]
    },
    {"envFrom": [{"prefix": "X_", "configMapRef": {"name": "c"}}]},
    {"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 81, "protocol": "UDP"}]},
    {"ports": [{"containerPort": 80}, {"containerPort": 81, "hostPort": 82}]},
    {"ports": [{"containerPort": 80, "hostIP": "127.0.0.1"}]},
    {"ports": [{"containerPort": 80, "protocol": "SCTP"}]},
    {"securityContext": {}},
    {"securityContext": {"privileged": True}},
    {"securityContext": {"privileged": False}},
    {"securityContext": {"allowPrivilegeEscalation": True}},
    {"securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True}},
    {"securityContext": {"capabilities": {"drop": ["ALL"]}}},
    {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"], "drop": ["ALL"]}}},
    {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}},
    {"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}}},
    {"securityContext": {"seLinuxOptions": {"level": "s0"}}},
    {"securityContext": {"runAsUser": 0, "readOnlyRootFilesystem": True}},
    {"livenessProbe": {"httpGet": {"port": 80, "path": "/"}, "periodSeconds": 5}},
    {
        "readinessProbe": {"tcpSocket": {"port": "web"}},
        "ports": [{"name": "web", "containerPort": 1}],
    },
    {"startupProbe": {"grpc": {"port": 80}}},
    {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
    {"lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}},
    {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}, "stopSignal": "SIGUSR1"}},
    {"volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True, "subPath": "a"}]},
    {"volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "HostToContainer"}]},
    {
        "volumeMounts": [
            {"name": "v", "mountPath": "/v", "readOnly": True, "recursiveReadOnly": "Enabled"}
        ]
    },
    {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]},
    {"resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "0"}}},
    {"terminationMessagePolicy": "FallbackToLogsOnError", "workingDir": "/x"},
    {"command": ["a"], "args": [], "imagePullPolicy": "Always"},
)
_SPEC: tuple[Json, ...] = (
    {"hostPID": True},
    {"hostPID": False, "hostIPC": False},
    {"hostNetwork": True},
    {"hostUsers": False},
    {"imagePullSecrets": [{"name": "x"}]},
    {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1"]}},
    {"dnsPolicy": "Default"},
    {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}},
    {"securityContext": {"fsGroup": 0, "supplementalGroups": [1]}},
    {"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}},
    {
        "securityContext": {
            "fsGroupChangePolicy": "Always",
            "seccompProfile": {"type": "Unconfined"},
        }
    },
    {"securityContext": {"supplementalGroupsPolicy": "Merge"}},
    {
        "affinity": {
            "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "k", "labelSelector": {}}
                ]
            }
        }
    },
    {
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "k"}}
                ]
            }
        }
    },
    {"affinity": {"nodeAffinity": {}}},
    {"os": {"name": "linux"}},
    {"os": {"name": "windows"}},
    {"restartPolicy": "Never", "activeDeadlineSeconds": 5},
    {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]},
    {"readinessGates": [{"conditionType": "x"}]},
    {"schedulingGates": [{"name": "example.org/g"}]},
    {"shareProcessNamespace": True, "setHostnameAsFQDN": True},
    {"runtimeClassName": ""},
    {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"}},
    {"topologySpreadConstraints": []},
    {"terminationGracePeriodSeconds": 0, "enableServiceLinks": False},
    {"volumes": [{"name": "v", "emptyDir": {}}]},
    {"volumes": [{"name": "v"}, {"name": "w", "hostPath": {"path": "/x"}}]},
    {"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]},
    {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
    {"volumes": [{"name": "v", "csi": {"driver": "d.example.org"}}]},
    {
        "volumes": [
            {
                "name": "v",
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "spec": {
                            "accessModes": ["ReadWriteOnce"],
                            "resources": {"requests": {"storage": "1Gi"}},
                        }
                    }
                },
            }
        ]
    },
    {"resources": {"limits": {"cpu": "1"}}},
    {"overhead": {}},
)
_ANNOTATIONS: tuple[dict[str, str], ...] = (
    {"example.org/x": "y"},
    {"slurm-job.hpk.io/flags": "-n1", "slurm.hpk.io/flags": "-n1"},
    {"slurm-job.hpk.io/flgas": "-n1"},
    {"slurm-job.vk.io/mpi-flag": "true"},
    {"slurm.hpk.io/": "x"},
)


def _random_pod(dice: random.Random) -> Json:
    def container(name: str, choices: int) -> Json:
        made: Json = {"name": name, "image": "x"}
        for part in dice.sample(_CONTAINER, choices):
            made |= copy.deepcopy(part)
        return made

    spec: Json = {"containers": [container("main", dice.randint(0, 4))]}
    for index in range(dice.choice((0, 0, 1))):
        spec["containers"].append(container(f"more-{index}", dice.randint(0, 3)))
    if dice.random() < 0.3:
        spec["initContainers"] = [container("first", dice.randint(0, 3))]
        if dice.random() < 0.3:
            spec["initContainers"][0]["restartPolicy"] = "Always"
    for part in dice.sample(_SPEC, dice.choice((0, 0, 1, 1, 2, 3))):
        spec |= copy.deepcopy(part)
    if "volumes" not in spec:
        spec["volumes"] = [{"name": "v", "emptyDir": {}}]
    return _pod(spec, dice.choice((*_ANNOTATIONS, {}, {}, {})))


def _agrees(api: Api, pod: Json) -> bool | None:
    """Compares the two answers: whether it was refused, None if upstream takes no such Pod."""
    status, stored = api.pods("off", pod)
    if status != 201:
        return None
    wanted = _first_refusal(stored)
    status, answer = api.pods("on", pod)
    if wanted is None:
        assert status == 201, (pod, answer)
        return False
    assert status == 422, (wanted, pod, answer)
    told = _told(answer)
    assert told[-1] == "and more" or any(said.startswith(wanted) for said in told), (wanted, told)
    return True


def test_it_refuses_what_admission_refuses_and_nothing_else(api: Api) -> None:
    dice = random.Random(20)
    found = [_agrees(api, _random_pod(dice)) for _ in range(EXAMPLES)]
    for answer in (True, False):
        assert found.count(answer) > EXAMPLES / 10, found


@pytest.mark.parametrize("part", [*_CONTAINER, *_SPEC], ids=lambda part: json.dumps(part)[:60])
def test_each_part_by_itself(api: Api, part: Json) -> None:
    spec: Json = {"containers": [{"name": "main", "image": "x"}]}
    spec["volumes"] = [{"name": "v", "emptyDir": {}}]
    if part in _CONTAINER:
        spec["containers"][0] |= part
    else:
        spec |= part
    _agrees(api, _pod(spec))


@pytest.mark.parametrize("name", REFUSALS)
def test_pods_that_must_be_refused(api: Api, name: str) -> None:
    made = copy.deepcopy(REFUSALS[name].pod)
    made["spec"].pop("nodeName", None)
    _agrees(api, made)


KINDS = {
    "Deployment": ("/apis/apps/v1", "deployments", "spec.template."),
    "StatefulSet": ("/apis/apps/v1", "statefulsets", "spec.template."),
    "DaemonSet": ("/apis/apps/v1", "daemonsets", "spec.template."),
    "ReplicaSet": ("/apis/apps/v1", "replicasets", "spec.template."),
    "ReplicationController": ("/api/v1", "replicationcontrollers", "spec.template."),
    "Job": ("/apis/batch/v1", "jobs", "spec.template."),
    "CronJob": ("/apis/batch/v1", "cronjobs", "spec.jobTemplate.spec.template."),
}


def _workload(kind: str, container: Json, annotations: dict[str, str] | None = None) -> Json:
    labels = {"app": "w"}
    template: Json = {
        "metadata": {"labels": labels, "annotations": annotations or {}},
        "spec": {"containers": [{"name": "main", "image": "x", **container}]},
    }
    if kind in ("Job", "CronJob"):
        template["spec"]["restartPolicy"] = "Never"
        spec: Json = {"template": template}
        if kind == "CronJob":
            spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": spec}}
    else:
        spec = {"template": template, "selector": {"matchLabels": labels}}
        if kind == "ReplicationController":
            spec["selector"] = labels
        if kind == "StatefulSet":
            spec["serviceName"] = "w"
    return {"metadata": {"name": "w"}, "spec": spec}


@pytest.mark.parametrize("kind", KINDS)
def test_pod_templates(api: Api, kind: str) -> None:
    group, resource, prefix = KINDS[kind]
    path = f"{group}/namespaces/on/{resource}"
    assert api.post(path, _workload(kind, {}))[0] == 201
    status, answer = api.post(path, _workload(kind, _REFUSED))
    assert status == 422, answer
    assert _told(answer) == [
        f"{prefix}spec.containers[0].ports[0].hostIP: is not supported yet: remove it"
    ]
    misspelt = {"slurm-job.hpk.io/flgas": "-n1"}
    status, answer = api.post(path, _workload(kind, {}, misspelt))
    assert status == 422, answer
    assert _told(answer) == [
        f"{prefix}metadata.annotations[slurm-job.hpk.io/flgas]: no annotation of this name: 'flgas'"
    ]


def test_what_is_there_already_can_be_scaled_and_labelled(api: Api) -> None:
    """It came before the policy, or with it off."""
    path = "/apis/apps/v1/namespaces/off/deployments"
    status, _ = api.post(path, _workload("Deployment", _REFUSED), dry_run=False)
    assert status == 201
    meta: Json = {"labels": {admission_policy.LABEL: "deny"}}
    patch = "application/merge-patch+json"
    own = "/api/v1/namespaces/off"
    assert api.client.patch(own, {"metadata": meta}, content_type=patch)[0] == 200
    try:
        bad = _workload("Deployment", _REFUSED)
        eventually(lambda: api.post(path, bad)[0] == 422, what="the policy is in force there")
        scaled = {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 0}}
        assert api.client.patch(f"{path}/w", scaled, content_type=patch)[0] == 200
        changed = {"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}}
        status, body = api.client.patch(f"{path}/w", changed, content_type=patch)
        assert status == 422, body
    finally:
        meta = {"labels": {admission_policy.LABEL: "off"}}
        api.client.patch(own, {"metadata": meta}, content_type=patch)
        eventually(lambda: api.post(path, bad)[0] != 422, what="it is off again")


def test_many_refusals_are_cut_short(api: Api) -> None:
    containers = [{"name": f"c{n}", "image": "x", **_REFUSED} for n in range(40)]
    status, answer = api.pods("on", _pod({"containers": containers}))
    assert status == 422
    told = _told(answer)
    assert told[-1] == "and more"
    assert len(told) == 6


def test_a_very_large_pod_is_still_judged(api: Api) -> None:
    env = [{"name": f"V{n}", "value": "x"} for n in range(200)]
    containers: list[Json] = [{"name": f"c{n}", "image": "x", "env": env} for n in range(20)]
    assert api.pods("on", _pod({"containers": containers}))[0] == 201
    containers[-1] |= _REFUSED
    status, answer = api.pods("on", _pod({"containers": containers}))
    assert status == 422
    assert "spec.containers[19].ports[0].hostIP" in answer["message"]


def test_warned_is_not_refused(api: Api) -> None:
    bad = _pod({"containers": [{"name": "main", "image": "x", **_REFUSED}]})
    assert api.pods("warned", bad)[0] == 201


def test_the_kubelet_makes_tokens_for_pods_alone(api: Api) -> None:
    """As the kubelet's user: a stolen certificate of his is no way to every service account."""
    path = "/api/v1/namespaces/on/serviceaccounts/default/token"
    request: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    as_kubelet = {"Impersonate-User": "hpk:kubelet"}
    status, body = api.client.post(path, request, headers=as_kubelet)
    assert status == 422, body
    assert b"for Pods alone" in body
    status, body = api.client.post(path, request)
    assert status == 201, body
