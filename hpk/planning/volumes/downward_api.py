"""``downwardAPI``: fields of the Pod as files."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import DownwardItem, EnvKind, EnvSource, ProjectedVolume
from hpk.planning.base.fields import INVALID, JsonObject, get_mode, get_objects, get_relative_path
from hpk.planning.environment.downward import (
    DownwardContext,
    field_ref,
    resource_field,
    static_field,
)
from hpk.planning.volumes.base import VolumeContext, default_mode


def plan(context: VolumeContext, name: str, volume: JsonObject, path: str) -> ProjectedVolume:
    """The volume, as a projected one with this single source."""
    return ProjectedVolume(
        name=name,
        default_mode=default_mode(volume, path),
        downward=plan_items(context.downward, volume, path),
    )


def plan_items(context: DownwardContext, source: JsonObject, path: str) -> tuple[DownwardItem, ...]:
    """``items``, of a volume or of a projected one's source."""
    return tuple(
        _item(context, item, item_path) for item_path, item in get_objects(source, "items", path)
    )


def _item(context: DownwardContext, item: JsonObject, path: str) -> DownwardItem:
    target = get_relative_path(item, "path", path)
    mode = get_mode(item, "mode", path)
    has_field = item.get("fieldRef") is not None
    if has_field == (item.get("resourceFieldRef") is not None):
        raise AdmissionError(INVALID, path, "must have either a fieldRef or a resourceFieldRef")
    if not has_field:
        return DownwardItem(target, resource_field(context, item, path, ""), mode=mode)
    field_path = field_ref(item, path, in_volume=True)
    value = static_field(context.pod, field_path)
    if value is not None:
        return DownwardItem(target, value, mode=mode)
    return DownwardItem(target, "", EnvSource(EnvKind.FIELD, key=field_path), mode)
