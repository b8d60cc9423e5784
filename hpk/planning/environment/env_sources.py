"""Where variables come from: ``env[].valueFrom`` and ``envFrom``, as EnvSource."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.plan import EnvKind, EnvSource, EnvVar
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_object,
    get_objects,
    get_text,
)
from hpk.planning.environment.downward import (
    DownwardContext,
    field_ref,
    resource_field,
    static_field,
)

_KEY_REFS = {
    "configMapKeyRef": EnvKind.CONFIG_MAP_KEY,
    "secretKeyRef": EnvKind.SECRET_KEY,
}
_FROM_REFS = {"configMapRef": EnvKind.CONFIG_MAP, "secretRef": EnvKind.SECRET}


def plan_value_from(
    container: PodContainer, item: JsonObject, path: str, name: str, context: DownwardContext
) -> EnvVar:
    """A variable with ``valueFrom``: its value where that is known and stays, else its source."""
    holder = get_object(item, "valueFrom", path)
    path = f"{path}.valueFrom"
    kinds = [kind for kind in holder if holder[kind] is not None]
    if len(kinds) != 1:
        raise AdmissionError(INVALID, path, "must name exactly one source")
    kind = kinds[0]
    if kind == "fieldRef":
        field_path = field_ref(holder, path, in_volume=False)
        value = static_field(context.pod, field_path)
        if value is not None:
            return EnvVar(name, value)
        return EnvVar(name, "", EnvSource(EnvKind.FIELD, key=field_path))
    if kind == "resourceFieldRef":
        return EnvVar(name, resource_field(context, holder, path, container.name))
    if kind not in _KEY_REFS:
        raise AdmissionError(UNSUPPORTED, f"{path}.{kind}", "is not supported yet")
    reference = get_object(holder, kind, path)
    source = EnvSource(
        kind=_KEY_REFS[kind],
        name=_required(reference, "name", f"{path}.{kind}"),
        key=_required(reference, "key", f"{path}.{kind}"),
        optional=reference.get("optional") is True,
    )
    return EnvVar(name, "", source)


def plan_env_from(container: PodContainer) -> tuple[EnvSource, ...]:
    """The container's ``envFrom``, in its order."""
    sources = []
    for path, item in get_objects(container.spec, "envFrom", container.path):
        kinds = [kind for kind in _FROM_REFS if item.get(kind) is not None]
        if len(kinds) != 1:
            raise AdmissionError(INVALID, path, "must name one configMapRef or secretRef")
        reference = get_object(item, kinds[0], path)
        sources.append(
            EnvSource(
                kind=_FROM_REFS[kinds[0]],
                name=_required(reference, "name", f"{path}.{kinds[0]}"),
                optional=reference.get("optional") is True,
                prefix=get_text(item, "prefix", path),
            )
        )
    return tuple(sources)


def _required(parent: JsonObject, name: str, path: str) -> str:
    value = get_text(parent, name, path)
    if not value:
        raise AdmissionError(INVALID, f"{path}.{name}", "must not be empty")
    return value
