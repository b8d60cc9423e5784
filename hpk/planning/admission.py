"""Refusing what cannot run, with a reason, before anything is submitted.

A whitelist: every field of a Pod that is not named here is refused by its path, so that a field
HPK does not know (yet) is never silently ignored. What the API server adds to every Pod by itself
passes; see docs/pod-fields.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.planning.annotations import read_annotations
from hpk.planning.environment import pod_environment
from hpk.planning.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_object,
    get_objects,
    get_text,
    get_texts,
    is_absent,
)
from hpk.planning.flags import parse_flags
from hpk.planning.mpi import plan_mpi
from hpk.planning.resources import container_resources
from hpk.planning.runtime import plan_runtime
from hpk.planning.site import SiteSettings
from hpk.planning.volumes import plan_mounts, plan_volumes

Check = Callable[[Any, str], None]


def admit_pod(pod: JsonObject, site: SiteSettings) -> None:
    """Pass, or say what of the Pod cannot run here.

    Needs no image and no Slurm: what depends on them is refused by hpk.planning.plan.plan_pod.

    :raises AdmissionError: reason ``UnsupportedField``, ``InvalidField`` or ``InvalidAnnotation``.
    """
    _walk(get_object(pod, "spec", ""), "spec", _SPEC)
    annotations = read_annotations(pod)
    if "flags" in annotations:
        parse_flags(annotations["flags"].value, annotations["flags"].field)
    plan_mpi(annotations, site)
    plan_runtime(annotations, site)
    plan_volumes(pod)
    for path, container in get_objects(get_object(pod, "spec", ""), "containers", "spec"):
        _check_container(container, path, site)


def _check_container(container: JsonObject, path: str, site: SiteSettings) -> None:
    get_text(container, "name", path)
    get_text(container, "image", path)
    get_texts(container, "command", path)
    get_texts(container, "args", path)
    pod_environment(container, path)
    plan_mounts(container, path)
    container_resources(container, path, site.gpus)
    for name in ("workingDir", "terminationMessagePath"):
        directory = get_text(container, name, path)
        if directory and not directory.startswith("/"):
            raise AdmissionError(INVALID, f"{path}.{name}", "must be an absolute path")


def _walk(value: Mapping[str, Any], path: str, known: Mapping[str, Check]) -> None:
    """Check each field that says something; refuse those without a check."""
    for name, item in value.items():
        if is_absent(item):
            continue
        check = known.get(name, _unsupported)
        check(item, f"{path}.{name}")


def _unsupported(value: Any, path: str) -> None:
    raise AdmissionError(UNSUPPORTED, path, "is not supported yet", remedy="remove it")


def _any(value: Any, path: str) -> None:
    """Handled elsewhere, or the business of the API server and the scheduler."""


def _only(*allowed: Any) -> Check:
    def check(value: Any, path: str) -> None:
        if not any(value is item or value == item for item in allowed):
            wanted = " or ".join(repr(item) for item in allowed)
            raise AdmissionError(UNSUPPORTED, path, f"only {wanted} is supported yet")

    return check


def _object(known: Mapping[str, Check]) -> Check:
    def check(value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise AdmissionError(INVALID, path, "must be an object")
        _walk(value, path, known)

    return check


def _objects(known: Mapping[str, Check]) -> Check:
    each = _object(known)

    def check(value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise AdmissionError(INVALID, path, "must be a list")
        for index, item in enumerate(value):
            each(item, f"{path}[{index}]")

    return check


def _one_container(value: Any, path: str) -> None:
    if isinstance(value, list) and len(value) > 1:
        raise AdmissionError(
            UNSUPPORTED,
            f"{path}[1]",
            "more than one container is not supported yet",
            remedy="put each container into a Pod of its own",
        )
    _objects(_CONTAINER)(value, path)


def _ports(value: Any, path: str) -> None:
    _objects(
        {"name": _any, "containerPort": _any, "protocol": _only("TCP", "UDP"), "hostPort": _any}
    )(value, path)
    for index, port in enumerate(value):
        if port.get("hostPort") not in (None, 0, port.get("containerPort")):
            raise AdmissionError(
                INVALID,
                f"{path}[{index}].hostPort",
                "must equal containerPort, for Pods are on the host network",
            )


def _volumes(value: Any, path: str) -> None:
    if not isinstance(value, list):
        raise AdmissionError(INVALID, path, "must be a list")
    for index, volume in enumerate(value):
        item_path = f"{path}[{index}]"
        if not isinstance(volume, dict):
            raise AdmissionError(INVALID, item_path, "must be an object")
        for name in volume:
            if name not in ("name", "projected"):
                _unsupported(volume[name], f"{item_path}.{name}")
        projected = get_object(volume, "projected", item_path)
        _walk(projected, f"{item_path}.projected", {"defaultMode": _any, "sources": _sources})


def _sources(value: Any, path: str) -> None:
    known = {
        "serviceAccountToken": _object({"audience": _any, "expirationSeconds": _any, "path": _any}),
        "configMap": _object(
            {"name": _any, "items": _objects({"key": _any, "path": _any}), "optional": _any}
        ),
        "downwardAPI": _object({"items": _objects({"path": _any, "fieldRef": _any})}),
    }
    _objects(known)(value, path)


def _resources(value: Any, path: str) -> None:
    _object({"limits": _any, "requests": _any})(value, path)


def _affinity(value: Any, path: str) -> None:
    _object({"nodeAffinity": _any})(value, path)


_CONTAINER: Mapping[str, Check] = {
    "name": _any,
    "image": _any,
    "imagePullPolicy": _any,
    "command": _any,
    "args": _any,
    "env": _objects({"name": _any, "value": _any}),
    "workingDir": _any,
    "ports": _ports,
    "resources": _resources,
    "resizePolicy": _any,
    # False is how every container runs: no program in it gains privileges by being executed.
    "securityContext": _object({"allowPrivilegeEscalation": _only(False)}),
    "terminationMessagePath": _any,
    "terminationMessagePolicy": _only("File", "FallbackToLogsOnError"),
    "volumeMounts": _objects(
        {
            "name": _any,
            "mountPath": _any,
            "readOnly": _any,
            "mountPropagation": _only("None"),
            "recursiveReadOnly": _only("Disabled"),
        }
    ),
}

_SPEC: Mapping[str, Check] = {
    "activeDeadlineSeconds": _any,
    "affinity": _affinity,
    "automountServiceAccountToken": _any,
    "containers": _one_container,
    "dnsPolicy": _only("ClusterFirst", "ClusterFirstWithHostNet", "Default"),
    "enableServiceLinks": _any,
    "hostNetwork": _any,
    "hostUsers": _any,
    "nodeName": _any,
    "nodeSelector": _any,
    "os": _object({"name": _only("linux")}),
    "preemptionPolicy": _any,
    "priority": _any,
    "restartPolicy": _only("Always", "OnFailure", "Never"),
    "schedulerName": _any,
    "securityContext": _object({}),
    "serviceAccount": _any,
    "serviceAccountName": _any,
    "terminationGracePeriodSeconds": _any,
    "tolerations": _any,
    "topologySpreadConstraints": _any,
    "volumes": _volumes,
}
