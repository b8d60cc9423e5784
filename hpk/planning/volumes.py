"""Volumes whose files come in the bundle: the projected one that the API server adds."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import (
    ConfigMapSource,
    DownwardItem,
    KeyToPath,
    ProjectedVolume,
    TokenSource,
    VolumeMount,
)
from hpk.planning.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_integer,
    get_object,
    get_objects,
    get_text,
)

DEFAULT_MODE = 0o644
DEFAULT_EXPIRATION_S = 3600


def plan_volumes(pod: JsonObject) -> tuple[ProjectedVolume, ...]:
    """The Pod's projected volumes, in its order."""
    spec = get_object(pod, "spec", "")
    return tuple(
        _plan_volume(pod, path, volume) for path, volume in get_objects(spec, "volumes", "spec")
    )


def plan_mounts(container: JsonObject, path: str) -> tuple[VolumeMount, ...]:
    """The container's mounts, in its order."""
    mounts = []
    for mount_path, mount in get_objects(container, "volumeMounts", path):
        target = get_text(mount, "mountPath", mount_path)
        if not target.startswith("/"):
            raise AdmissionError(INVALID, f"{mount_path}.mountPath", "must be an absolute path")
        mounts.append(
            VolumeMount(
                volume=get_text(mount, "name", mount_path),
                mount_path=target,
                read_only=mount.get("readOnly") is True,
            )
        )
    return tuple(mounts)


def _plan_volume(pod: JsonObject, path: str, volume: JsonObject) -> ProjectedVolume:
    projected = get_object(volume, "projected", path)
    tokens: list[TokenSource] = []
    config_maps: list[ConfigMapSource] = []
    downward: list[DownwardItem] = []
    for source_path, source in get_objects(projected, "sources", f"{path}.projected"):
        if "serviceAccountToken" in source:
            tokens.append(_token(source, source_path))
        elif "configMap" in source:
            config_maps.append(_config_map(source, source_path))
        elif "downwardAPI" in source:
            api_path = f"{source_path}.downwardAPI"
            items = get_object(source, "downwardAPI", source_path)
            downward.extend(
                _downward(pod, item_path, item)
                for item_path, item in get_objects(items, "items", api_path)
            )
    mode = get_integer(projected, "defaultMode", f"{path}.projected", DEFAULT_MODE)
    return ProjectedVolume(
        name=get_text(volume, "name", path),
        default_mode=DEFAULT_MODE if mode is None else mode,
        tokens=tuple(tokens),
        config_maps=tuple(config_maps),
        downward=tuple(downward),
    )


def _token(source: JsonObject, path: str) -> TokenSource:
    token = get_object(source, "serviceAccountToken", path)
    token_path = f"{path}.serviceAccountToken"
    expiration = get_integer(token, "expirationSeconds", token_path, DEFAULT_EXPIRATION_S)
    return TokenSource(
        path=_relative(token, "path", token_path),
        audience=get_text(token, "audience", token_path),
        expiration_s=DEFAULT_EXPIRATION_S if expiration is None else expiration,
    )


def _config_map(source: JsonObject, path: str) -> ConfigMapSource:
    config_map = get_object(source, "configMap", path)
    map_path = f"{path}.configMap"
    items = get_objects(config_map, "items", map_path)
    return ConfigMapSource(
        name=get_text(config_map, "name", map_path),
        items=tuple(
            KeyToPath(key=get_text(item, "key", item_path), path=_relative(item, "path", item_path))
            for item_path, item in items
        ),
        optional=config_map.get("optional") is True,
    )


def _downward(pod: JsonObject, path: str, item: JsonObject) -> DownwardItem:
    field_path = get_text(get_object(item, "fieldRef", path), "fieldPath", f"{path}.fieldRef")
    if field_path not in ("metadata.name", "metadata.namespace", "metadata.uid"):
        raise AdmissionError(
            UNSUPPORTED, f"{path}.fieldRef.fieldPath", f"{field_path!r} is not supported yet"
        )
    metadata = get_object(pod, "metadata", "")
    value = get_text(metadata, field_path.partition(".")[2], "metadata")
    return DownwardItem(path=_relative(item, "path", path), value=value)


def _relative(item: JsonObject, name: str, path: str) -> str:
    """A path inside the volume that cannot lead out of it."""
    value = get_text(item, name, path)
    if not value or value.startswith("/") or ".." in value.split("/"):
        raise AdmissionError(
            INVALID, f"{path}.{name}", f"{value!r} must be a relative path without '..'"
        )
    return value
