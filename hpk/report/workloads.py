"""Documents to the Pods that would come of them. Pure.

What controllers and the API server add to a Pod is added here as far as it decides about the job:
a name, the namespace, the token's volume. Anything that makes no Pod is passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpk.model.errors import ParseError
from hpk.report.argo import WORKFLOWS, workflow_pods

Json = dict[str, Any]

UID = "<UID>"
_SUFFIX = "xxxxx"
_TEMPLATED = {
    "DaemonSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
_TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSource:
    """One Pod that a document makes.

    :param origin: ``Job/melt``, or ``Workflow/scaling, template run``.
    :param pod: ``v1.Pod`` as JSON.
    :param notes: what about it holds only in part.
    """

    origin: str
    pod: Json
    notes: tuple[str, ...] = ()


def pods_of(
    document: Any, *, namespace: str, parameters: Mapping[str, str]
) -> tuple[PodSource, ...]:
    """The Pods a document makes, in its order.

    :param namespace: for objects that name none.
    :param parameters: values of an Argo Workflow's parameters, by name.
    :raises ParseError: it is no Kubernetes object.
    """
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise ParseError(
            "a document is no Kubernetes object: it has no kind", remedy="set apiVersion and kind"
        )
    return tuple(_pods(document, namespace, parameters))


def _pods(document: Json, namespace: str, parameters: Mapping[str, str]) -> Iterator[PodSource]:
    kind = document["kind"]
    items = document.get("items")
    if kind.endswith("List") and isinstance(items, list):
        for item in items:
            yield from pods_of(item, namespace=namespace, parameters=parameters)
        return
    metadata = _object(document.get("metadata"), f"{kind}: metadata")
    name = str(metadata.get("name") or f"{metadata.get('generateName') or 'unnamed-'}{_SUFFIX}")
    namespace = str(metadata.get("namespace") or namespace)
    if kind == "Pod":
        yield PodSource(origin=f"Pod/{name}", pod=_pod(document, name, namespace))
    elif kind in WORKFLOWS:
        for one in workflow_pods(document, parameters):
            yield PodSource(
                origin=f"{kind}/{name}, template {one.template}",
                pod=_pod(one.pod, f"{name}-{one.template}-{_SUFFIX}", namespace),
                notes=one.notes,
            )
    elif kind in _TEMPLATED:
        template: Any = document
        for key in _TEMPLATED[kind]:
            template = _object(template.get(key), f"{kind}/{name}: {key}")
        pod_name = f"{name}-0" if kind == "StatefulSet" else f"{name}-{_SUFFIX}"
        yield PodSource(origin=f"{kind}/{name}", pod=_pod(template, pod_name, namespace))


def _object(value: Any, where: str) -> Json:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ParseError(f"{where} must be an object", remedy="correct the manifest")
    return value


def _pod(template: Mapping[str, Any], name: str, namespace: str) -> Json:
    """The Pod as the API server would hand it to the kubelet."""
    metadata = dict(_object(template.get("metadata"), f"{name}: metadata"))
    metadata |= {"name": name, "namespace": namespace, "uid": UID}
    spec = copy.deepcopy(_object(template.get("spec"), f"{name}: spec"))
    if spec.get("automountServiceAccountToken") is not False:
        _add_token(spec)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _add_token(spec: Json) -> None:
    """What the admission plugin ServiceAccount adds (plugin/pkg/admission/serviceaccount)."""
    volume = f"kube-api-access-{_SUFFIX}"
    mount = {"name": volume, "mountPath": _TOKEN_DIRECTORY, "readOnly": True}
    added = False
    for kind in ("initContainers", "containers"):
        containers = spec.get(kind)
        for container in containers if isinstance(containers, list) else ():
            mounts = container.setdefault("volumeMounts", []) if isinstance(container, dict) else 0
            if isinstance(mounts, list) and not any(
                isinstance(m, dict) and m.get("mountPath") == _TOKEN_DIRECTORY for m in mounts
            ):
                mounts.append(mount)
                added = True
    volumes = spec.setdefault("volumes", [])
    if not added or not isinstance(volumes, list):
        return
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    volumes.append({"name": volume, "projected": {"defaultMode": 420, "sources": sources}})
