"""Pods as a Job makes them and the API server completes them, and what is planned for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hpk.model.errors import AdmissionError
from hpk.model.job import Partition
from hpk.model.plan import ImageConfig, ImagePlan, PodPlan
from hpk.planning.job.site import SiteSettings
from hpk.planning.plan import plan_pod

GIB = 1 << 30
MIB = 1 << 20
SITE = SiteSettings(own_directories=("/home/alice/.hpk",))
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
PASSWD = "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/:/bin/sh\n"
IMAGES = {
    "main": IMAGE,
    "two": IMAGE,
    "web": ImagePlan("w", "w@sha256:1", "/w.sif", ImageConfig(("w",), user="web"), PASSWD),
    "root": ImagePlan("r", "r@sha256:1", "/r.sif", ImageConfig(("r",)), PASSWD),
}
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
    """The plan of a Pod whose images are those of IMAGES by the containers' names."""
    names = [c["name"] for c in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]]
    images = {name: IMAGES.get(name, IMAGE) for name in names}
    return plan_pod(pod, images=images, partition=partition, site=site)


def options(result: PodPlan) -> dict[str, str | None]:
    return {option.name: option.value for option in result.options}


def refusal(pod: dict[str, Any], *, partition: Partition = MAIN) -> AdmissionError:
    with pytest.raises(AdmissionError) as caught:
        plan(pod, partition=partition)
    return caught.value


def with_others(
    *others: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **changes: Any
) -> dict[str, Any]:
    pod = a_pod(**changes)
    pod["spec"]["containers"] += [{"image": "x", **other} for other in others]
    if init:
        pod["spec"]["initContainers"] = [{"image": "x", **item} for item in init]
    return pod
