"""``secret``: a Secret's keys as files."""

from __future__ import annotations

from hpk.model.plan import ProjectedVolume, SecretSource
from hpk.planning.base.fields import JsonObject, get_text
from hpk.planning.volumes.base import VolumeContext, default_mode, plan_items


def plan(context: VolumeContext, name: str, volume: JsonObject, path: str) -> ProjectedVolume:
    """The volume, as a projected one with this single source."""
    return ProjectedVolume(
        name=name,
        default_mode=default_mode(volume, path),
        secrets=(plan_source(volume, path, name_field="secretName"),),
    )


def plan_source(source: JsonObject, path: str, *, name_field: str = "name") -> SecretSource:
    """``items`` and the rest; a volume calls the name ``secretName``."""
    return SecretSource(
        name=get_text(source, name_field, path),
        items=plan_items(source, path),
        optional=source.get("optional") is True,
    )
