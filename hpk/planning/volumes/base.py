"""What the modules of this room share."""

from __future__ import annotations

from dataclasses import dataclass

from hpk.model.plan import EmptyDirVolume, HostPathVolume, KeyToPath, ProjectedVolume
from hpk.planning.base.fields import (
    JsonObject,
    get_mode,
    get_objects,
    get_relative_path,
    get_text,
)
from hpk.planning.environment.downward import DownwardContext

Volume = ProjectedVolume | EmptyDirVolume | HostPathVolume
_DEFAULT_MODE = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeContext:
    """What volumes are planned from.

    :param own_directories: HPK's own, which no hostPath may lie in.
    """

    downward: DownwardContext
    own_directories: tuple[str, ...]


def plan_items(source: JsonObject, path: str) -> tuple[KeyToPath, ...]:
    """``items``: which keys become files, and where."""
    return tuple(
        KeyToPath(
            key=get_text(item, "key", item_path),
            path=get_relative_path(item, "path", item_path),
            mode=get_mode(item, "mode", item_path),
        )
        for item_path, item in get_objects(source, "items", path)
    )


def default_mode(volume: JsonObject, path: str) -> int:
    """``defaultMode``, as the API server would complete it."""
    mode = get_mode(volume, "defaultMode", path)
    return _DEFAULT_MODE if mode is None else mode
