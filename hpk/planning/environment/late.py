"""A late container's environment and argv, from what the kubelet found when the job ran. Pure.

Order and words are upstream's (makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go): first
envFrom, then env, whose references see envFrom and what was declared before, then the API server's
own variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hpk.model.bundle import ContainerBundle
from hpk.model.errors import ParseError
from hpk.model.plan import ContainerPlan, EnvKind, EnvSource, EnvVar, PodPlan
from hpk.planning.environment.environment import image_environment, is_variable_name
from hpk.planning.environment.expansion import Lookup, expand
from hpk.planning.environment.sub_paths import expand_sub_path

CONFIG_ERROR = "CreateContainerConfigError"
_SECRETS = (EnvKind.SECRET, EnvKind.SECRET_KEY)
_CONFIG_MAPS = (EnvKind.CONFIG_MAP, EnvKind.CONFIG_MAP_KEY)

Objects = Mapping[str, Mapping[str, str] | None]
"""Text by key, by the object's name; None for an object that does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LateValues:
    """What late containers are made of.

    :param config_maps: all that `references_of` names; secrets alike.
    :param field: the value of a ``fieldPath``; raises ParseError.
    :param services: the variables of the API server.
    """

    namespace: str
    config_maps: Objects
    secrets: Objects
    field: Callable[[str], str]
    services: Mapping[str, str]


def references_of(plan: PodPlan) -> tuple[frozenset[str], frozenset[str]]:
    """The ConfigMaps and the Secrets that late containers need, by name."""
    sources = [
        source
        for container in plan.all_containers
        if container.late
        for source in (*container.env_from, *(v.source for v in container.env))
        if source is not None
    ]
    return (
        frozenset(s.name for s in sources if s.kind in _CONFIG_MAPS),
        frozenset(s.name for s in sources if s.kind in _SECRETS),
    )


def resolve_container(plan: ContainerPlan, values: LateValues) -> ContainerBundle:
    """The container's part of the bundle; its error says what is missing."""
    try:
        own = _own_environment(plan, values)
        lookup = _lookup(own, values)
        sub_paths = tuple(
            expand_sub_path(mount.sub_path_expr, lookup)
            for mount in plan.mounts
            if mount.sub_path_expr
        )
    except ParseError as error:
        return ContainerBundle(
            name=plan.name, env=(), argv=(), error=error.message, reason=CONFIG_ERROR
        )

    env = image_environment(plan.image.config) + tuple(EnvVar(n, v) for n, v in own.items())
    return ContainerBundle(
        name=plan.name,
        env=env,
        argv=tuple(expand(word, lookup) for word in plan.argv),
        sub_paths=sub_paths,
    )


def _own_environment(plan: ContainerPlan, values: LateValues) -> dict[str, str]:
    own: dict[str, str] = {}
    for source in plan.env_from:
        for key, text in (_object(source, values) or {}).items():
            # A key that no variable can have is left out, as upstream has it.
            if is_variable_name(source.prefix + key):
                own[source.prefix + key] = _checked(text, source, key)

    lookup = _lookup(own, values)
    for variable in plan.env[len(image_environment(plan.image.config)) :]:
        if variable.source is None:
            own[variable.name] = expand(variable.value, lookup)
            continue
        value = _value(variable.source, values)
        if value is not None:
            own[variable.name] = value
    return own


def _lookup(own: Mapping[str, str], values: LateValues) -> Lookup:
    """What a text may refer to: the variables so far, then the API server's."""
    return lambda name: own[name] if name in own else values.services.get(name)


def _value(source: EnvSource, values: LateValues) -> str | None:
    """The variable's value; None where an optional one is missing."""
    if source.kind is EnvKind.FIELD:
        return values.field(source.key)
    found = _object(source, values)
    if found is None:
        return None
    if source.key in found:
        return _checked(found[source.key], source, source.key)
    if source.optional:
        return None
    raise ParseError(
        f"couldn't find key {source.key} in {_kind(source)} {values.namespace}/{source.name}"
    )


def _object(source: EnvSource, values: LateValues) -> Mapping[str, str] | None:
    objects = values.secrets if source.kind in _SECRETS else values.config_maps
    found = objects.get(source.name)
    if found is None and not source.optional:
        raise ParseError(f'{_kind(source).lower()} "{source.name}" not found')
    return found


def _checked(text: str, source: EnvSource, key: str) -> str:
    if "\0" in text:
        raise ParseError(
            f"key {key} of {_kind(source)} {source.name} holds a NUL byte,"
            " which no environment variable can"
        )
    return text


def _kind(source: EnvSource) -> str:
    return "Secret" if source.kind in _SECRETS else "ConfigMap"
