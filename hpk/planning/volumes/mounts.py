"""Where a container sees the Pod's volumes."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from hpk.model.errors import AdmissionError
from hpk.model.plan import ProjectedVolume, VolumeMount
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import (
    INVALID,
    JsonObject,
    get_objects,
    get_relative_path,
    get_text,
)
from hpk.planning.environment.environment import Declared
from hpk.planning.environment.expansion import expand
from hpk.planning.environment.sub_paths import is_late_sub_path
from hpk.planning.volumes.base import Volume


def plan_mounts(
    container: PodContainer, declared: Declared, volumes: Mapping[str, Volume]
) -> tuple[VolumeMount, ...]:
    """The container's mounts, in its order.

    What the kubelet writes into a volume is the Pod's to read only, as upstream has it.
    """
    mounts = []
    for path, mount in get_objects(container.spec, "volumeMounts", container.path):
        target = get_text(mount, "mountPath", path)
        if not target.startswith("/"):
            raise AdmissionError(INVALID, f"{path}.mountPath", "must be an absolute path")
        name = get_text(mount, "name", path)
        if name not in volumes:
            raise AdmissionError(INVALID, f"{path}.name", f"the Pod has no volume {name!r}")
        sub_path, expression = _sub_path(mount, path, declared)
        mounts.append(
            VolumeMount(
                volume=name,
                mount_path=target,
                read_only=mount.get("readOnly") is True
                or isinstance(volumes[name], ProjectedVolume),
                sub_path=sub_path,
                sub_path_expr=expression,
            )
        )
    return tuple(mounts)


def _sub_path(mount: JsonObject, path: str, declared: Declared) -> tuple[str, str]:
    """The sub path, or the expression that it is made of when the container starts."""
    expression = get_text(mount, "subPathExpr", path)
    if not expression:
        if not mount.get("subPath"):
            return "", ""
        return _whole(get_relative_path(mount, "subPath", path)), ""
    if mount.get("subPath"):
        raise AdmissionError(INVALID, f"{path}.subPathExpr", "cannot be combined with subPath")
    if is_late_sub_path(expression, declared.lookup):
        return "", expression
    return _whole(posixpath.normpath(expand(expression, declared.lookup))), ""


def _whole(path: str) -> str:
    """The path, "" for the volume itself."""
    return "" if posixpath.normpath(path) == "." else path
