"""``configMap``: a ConfigMap's keys as files."""

from __future__ import annotations

from hpk.model.plan import ConfigMapSource, ProjectedVolume
from hpk.planning.base.fields import JsonObject, get_text
from hpk.planning.volumes.base import VolumeContext, default_mode, plan_items


def plan(context: VolumeContext, name: str, volume: JsonObject, path: str) -> ProjectedVolume:
    """The volume, as a projected one with this single source."""
    return ProjectedVolume(
        name=name,
        default_mode=default_mode(volume, path),
        config_maps=(plan_source(volume, path),),
    )


def plan_source(source: JsonObject, path: str) -> ConfigMapSource:
    """``items`` and the rest, of a volume or of a projected one's source."""
    return ConfigMapSource(
        name=get_text(source, "name", path),
        items=plan_items(source, path),
        optional=source.get("optional") is True,
    )
