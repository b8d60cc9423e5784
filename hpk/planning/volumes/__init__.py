"""A Pod's volumes, one module for each type. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpk.model.errors import AdmissionError
from hpk.model.plan import EmptyDirVolume, HostPathVolume, ProjectedVolume
from hpk.planning.base.containers import check_label
from hpk.planning.base.fields import INVALID, UNSUPPORTED, JsonObject, get_object, get_objects
from hpk.planning.volumes import (
    config_map,
    downward_api,
    empty_dir,
    host_path,
    projected,
    secret,
)
from hpk.planning.volumes.base import Volume, VolumeContext

KINDS: Mapping[str, Callable[[VolumeContext, str, JsonObject, str], Volume]] = {
    "configMap": config_map.plan,
    "downwardAPI": downward_api.plan,
    "emptyDir": empty_dir.plan,
    "hostPath": host_path.plan,
    "projected": projected.plan,
    "secret": secret.plan,
}

__all__ = [
    "KINDS",
    "EmptyDirVolume",
    "HostPathVolume",
    "ProjectedVolume",
    "Volume",
    "VolumeContext",
    "plan_volumes",
]


def plan_volumes(context: VolumeContext) -> tuple[Volume, ...]:
    """The Pod's volumes, in its order.

    :raises AdmissionError: one that is not supported, by its type, or that cannot be.
    """
    spec = get_object(context.downward.pod, "spec", "")
    volumes = tuple(
        _plan(context, volume, path) for path, volume in get_objects(spec, "volumes", "spec")
    )
    names = [volume.name for volume in volumes]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise AdmissionError(INVALID, f"spec.volumes[{index}].name", f"{name!r} is there twice")
    return volumes


def _plan(context: VolumeContext, volume: JsonObject, path: str) -> Volume:
    name = check_label(volume, "name", path)
    kinds = [kind for kind, value in volume.items() if kind != "name" and value is not None]
    for kind in kinds:
        if kind not in KINDS:
            raise AdmissionError(
                UNSUPPORTED, f"{path}.{kind}", "is not supported yet", remedy="remove it"
            )
    if len(kinds) > 1:
        raise AdmissionError(INVALID, path, "must be of one type")
    # A volume that says nothing is an emptyDir, in upstream too.
    kind = kinds[0] if kinds else "emptyDir"
    return KINDS[kind](context, name, get_object(volume, kind, path), f"{path}.{kind}")
