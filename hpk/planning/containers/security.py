"""Who a container's process is, and what its securityContext takes from it.

A container has one uid and one gid: its user namespace maps exactly one of each. What needs more is
refused. Source of the messages: k8s.io/kubernetes, pkg/kubelet/kuberuntime/security_context.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.model.plan import ContainerPlan, ImagePlan
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_integer,
    get_list,
    get_object,
    get_text,
    get_texts,
)
from hpk.planning.containers.users import MAX_ID, resolve_user
from hpk.planning.environment.late import CONFIG_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """See hpk.model.plan.ContainerPlan."""

    uid: int
    gid: int
    read_only_root: bool
    dropped_capabilities: tuple[str, ...]


def plan_security(pod: JsonObject, container: PodContainer, image: ImagePlan) -> Security:
    """The container's user, its own context over the Pod's, over the image's USER."""
    own = get_object(container.spec, "securityContext", container.path)
    asked_uid = _effective(pod, container, "runAsUser")
    asked_gid = _effective(pod, container, "runAsGroup")
    user = image.config.user
    if asked_uid is not None:
        user = str(asked_uid)
    if asked_gid is not None:
        user = f"{user.partition(':')[0]}:{asked_gid}"
    uid, gid = resolve_user(image, container.path, user)
    if uid == 0 and _non_root(pod, container):
        what = "container's runAsUser breaks non-root policy"
        if asked_uid is None:
            what = "container has runAsNonRoot and image will run as root"
        raise AdmissionError(
            CONFIG_ERROR,
            f"{container.path}.securityContext.runAsNonRoot",
            f"{what} (pod: {_told(pod)}, container: {container.name})",
            remedy="set runAsUser to a number other than 0",
        )
    return Security(
        uid=uid,
        gid=gid,
        read_only_root=own.get("readOnlyRootFilesystem") is True,
        dropped_capabilities=_dropped(own, container.path),
    )


def check_groups(pod: JsonObject, containers: Iterable[ContainerPlan]) -> None:
    """Refuse groups that a container would not have.

    A volume belongs to the user and to his group on the node, which a container sees as its uid and
    its gid; so a fsGroup that is the gid is honoured, and no other can be.
    """
    spec = get_object(pod, "spec", "")
    context = get_object(spec, "securityContext", "spec")
    path = "spec.securityContext"
    asked: list[tuple[str, Any]] = [
        (f"{path}.supplementalGroups[{index}]", group)
        for index, group in enumerate(get_list(context, "supplementalGroups", path))
    ]
    if context.get("fsGroup") is not None:
        asked.append((f"{path}.fsGroup", context["fsGroup"]))
    for field, group in asked:
        for container in containers:
            if group != container.gid:
                raise AdmissionError(
                    UNSUPPORTED,
                    field,
                    f"a container has one group here, and that of {container.name} is"
                    f" {container.gid}, not {group}",
                    remedy=f"set runAsGroup to {group}, or remove it",
                )


def check_security(pod: JsonObject, container: PodContainer) -> None:
    """What can be said of the numbers and names without the image."""
    _effective(pod, container, "runAsUser")
    _effective(pod, container, "runAsGroup")
    _dropped(get_object(container.spec, "securityContext", container.path), container.path)


def _effective(pod: JsonObject, container: PodContainer, name: str) -> int | None:
    spec = get_object(pod, "spec", "")
    for parent, path in ((container.spec, container.path), (spec, "spec")):
        context = get_object(parent, "securityContext", path)
        number = get_integer(context, name, f"{path}.securityContext", None)
        if number is not None and number > MAX_ID:
            raise AdmissionError(
                INVALID, f"{path}.securityContext.{name}", f"must be at most {MAX_ID}"
            )
        if number is not None:
            return number
    return None


def _non_root(pod: JsonObject, container: PodContainer) -> bool:
    own = get_object(container.spec, "securityContext", container.path).get("runAsNonRoot")
    if own is not None:
        return own is True
    spec = get_object(pod, "spec", "")
    return get_object(spec, "securityContext", "spec").get("runAsNonRoot") is True


def _dropped(context: JsonObject, path: str) -> tuple[str, ...]:
    path = f"{path}.securityContext"
    capabilities = get_object(context, "capabilities", path)
    names = get_texts(capabilities, "drop", f"{path}.capabilities")
    return tuple(name.upper().removeprefix("CAP_") for name in names)


def _told(pod: JsonObject) -> str:
    """A Pod as upstream's messages name it."""
    meta = get_object(pod, "metadata", "")
    namespace = get_text(meta, "namespace", "metadata")
    return (
        f'"{get_text(meta, "name", "metadata")}_{namespace}({get_text(meta, "uid", "metadata")})"'
    )
