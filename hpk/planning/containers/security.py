"""Who a container's process is, and what its securityContext takes from it.

A container has one uid and one gid: its user namespace maps exactly one of each. What needs more is
refused. Its capabilities are over that namespace. Sources: of the messages k8s.io/kubernetes,
pkg/kubelet/kuberuntime/security_context.go; of what capabilities come to, containerd,
internal/cri/opts (WithCapabilities).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hpk.model.errors import AdmissionError
from hpk.model.plan import ContainerPlan, ImagePlan
from hpk.model.rights import CAPABILITIES, DEFAULT_CAPABILITIES, Rights
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
    is_absent,
)
from hpk.planning.containers.users import MAX_ID, resolve_user
from hpk.planning.environment.late import CONFIG_ERROR

_ALL = "ALL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """See hpk.model.plan.ContainerPlan."""

    uid: int
    gid: int
    read_only_root: bool
    rights: Rights
    selinux: bool


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
    if uid != 0 and asked_gid is None:
        gid = _volumes_group(pod, gid)
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
        rights=_rights(pod, own, container.path),
        selinux=any(
            not is_absent(context.get("seLinuxOptions"))
            for context in (own, get_object(get_object(pod, "spec", ""), "securityContext", "spec"))
        ),
    )


def _volumes_group(pod: JsonObject, gid: int) -> int:
    """The one group of a container that names none: the Pod's fsGroup, which its volumes are for.

    Elsewhere fsGroup comes beside the gid. Root keeps his: he gives files to root's group.
    """
    context = get_object(get_object(pod, "spec", ""), "securityContext", "spec")
    asked = get_integer(context, "fsGroup", "spec.securityContext", None)
    return gid if asked is None else asked


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
    _rights(pod, get_object(container.spec, "securityContext", container.path), container.path)


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


def _rights(pod: JsonObject, own: JsonObject, path: str) -> Rights:
    """Of a container with this context. One that is privileged has all there is."""
    path = f"{path}.securityContext"
    is_privileged = own.get("privileged") is True
    capabilities = get_object(own, "capabilities", path)
    return Rights(
        capabilities=_capabilities(
            CAPABILITIES if is_privileged else DEFAULT_CAPABILITIES,
            added=_names(capabilities, "add", f"{path}.capabilities"),
            dropped=_names(capabilities, "drop", f"{path}.capabilities"),
        ),
        can_gain=own.get("allowPrivilegeEscalation") is not False,
        is_filtered=not is_privileged and _seccomp_type(pod, own, path) != "Unconfined",
    )


def _capabilities(
    base: Iterable[str], *, added: frozenset[str], dropped: frozenset[str]
) -> tuple[str, ...]:
    """``ALL`` comes first, whether it is added or dropped; then what is named.

    Who may become another user (SETUID) does so here by a user namespace (gosu's replacement), for
    which the kernel wants SETFCAP.
    """
    kept = set(CAPABILITIES if _ALL in added else base)
    if _ALL in dropped:
        kept = set()
    kept = (kept | added) - dropped - {_ALL}
    if "SETUID" in kept and "SETFCAP" not in dropped:
        kept.add("SETFCAP")
    return tuple(name for name in CAPABILITIES if name in kept)


def _names(capabilities: JsonObject, field: str, path: str) -> frozenset[str]:
    names = []
    for index, text in enumerate(get_texts(capabilities, field, path)):
        name = text.upper().removeprefix("CAP_")
        if name != _ALL and name not in CAPABILITIES:
            raise AdmissionError(
                INVALID, f"{path}.{field}[{index}]", f"unknown capability {text!r}"
            )
        names.append(name)
    return frozenset(names)


def _seccomp_type(pod: JsonObject, own: JsonObject, path: str) -> str:
    """The container's own before the Pod's."""
    context = get_object(get_object(pod, "spec", ""), "securityContext", "spec")
    for parent, where in ((own, path), (context, "spec.securityContext")):
        profile = get_object(parent, "seccompProfile", where)
        if profile:
            return get_text(profile, "type", f"{where}.seccompProfile")
    return "RuntimeDefault"


def _told(pod: JsonObject) -> str:
    """A Pod as upstream's messages name it."""
    meta = get_object(pod, "metadata", "")
    namespace = get_text(meta, "namespace", "metadata")
    return (
        f'"{get_text(meta, "name", "metadata")}_{namespace}({get_text(meta, "uid", "metadata")})"'
    )
