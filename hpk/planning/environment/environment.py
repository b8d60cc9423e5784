"""A container's environment and command line: upstream's merge rules.

A container is *late* where a variable's value is known only when the job runs. Its variables and
its argv stay as they are written then, and hpk.planning.environment.late expands them for the
bundle. Source: k8s.io/kubernetes, pkg/kubelet/kubelet_pods.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.model.plan import DEFAULT_PATH, EnvSource, EnvVar, ImageConfig
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import INVALID, get_objects, get_text, get_texts
from hpk.planning.environment.downward import DownwardContext
from hpk.planning.environment.env_sources import plan_env_from, plan_value_from
from hpk.planning.environment.expansion import Lookup, escape, expand, references
from hpk.planning.environment.services import SERVICE_VARIABLES
from hpk.planning.environment.sub_paths import is_late_sub_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a Pod says of a container's variables.

    :param variables: in the Pod's order, values as they are written.
    :param late: whether only the kubelet can tell them, when the job runs.
    :param known: the values known now, expanded.
    :param path: of the container.
    """

    variables: tuple[EnvVar, ...]
    env_from: tuple[EnvSource, ...]
    late: bool
    known: Mapping[str, str]
    path: str

    def lookup(self, name: str) -> str | None:
        """A value that is known now."""
        return self.known.get(name)


def declare(container: PodContainer, context: DownwardContext) -> Declared:
    """The container's own variables.

    :raises AdmissionError: one that cannot be.
    """
    variables: list[EnvVar] = []
    known: dict[str, str] = {}
    env_from = plan_env_from(container)
    late = bool(env_from)
    for path, item in get_objects(container.spec, "env", container.path):
        name = get_text(item, "name", path)
        if not is_variable_name(name):
            raise AdmissionError(
                INVALID, f"{path}.name", f"{name!r} cannot name an environment variable"
            )
        value = get_text(item, "value", path)
        if not value and item.get("valueFrom") is not None:
            variable = plan_value_from(container, item, path, name, context)
        else:
            variable = EnvVar(name, value)
        variables.append(variable)
        unknown = _depends(value, variables[:-1], known, env_from)
        if variable.source is not None or unknown:
            late = True
            known.pop(name, None)
        else:
            known[name] = expand(variable.value, known.get)
    for text in _command_texts(container):
        late = late or _depends(text, variables, known, env_from)
    for path, mount in get_objects(container.spec, "volumeMounts", container.path):
        expression = get_text(mount, "subPathExpr", path)
        late = late or is_late_sub_path(expression, known.get)
    return Declared(
        variables=tuple(variables), env_from=env_from, late=late, known=known, path=container.path
    )


def _depends(
    text: str,
    variables: list[EnvVar],
    known: Mapping[str, str],
    env_from: tuple[EnvSource, ...],
) -> bool:
    """Whether a text refers to something that is known only later."""
    later = {variable.name for variable in variables} - known.keys()
    return any(
        name not in known and (name in later or name in SERVICE_VARIABLES or bool(env_from))
        for name in references(text)
    )


def _command_texts(container: PodContainer) -> list[str]:
    return [
        text
        for field in ("command", "args")
        for text in get_texts(container.spec, field, container.path)
    ]


def image_environment(image: ImageConfig) -> tuple[EnvVar, ...]:
    """The image's variables, with a PATH; they are never expanded and nothing refers to them."""
    env = tuple(EnvVar(name, value) for name, value in image.env)
    if any(variable.name == "PATH" for variable in env):
        return env
    return (EnvVar("PATH", DEFAULT_PATH), *env)


def plan_environment(declared: Declared, image: ImageConfig) -> tuple[EnvVar, ...]:
    """The image's variables, then the Pod's; expanded, unless the container is late."""
    if declared.late:
        return image_environment(image) + declared.variables
    own = (EnvVar(name, value) for name, value in declared.known.items())
    return (*image_environment(image), *own)


def is_variable_name(name: str) -> bool:
    """Whether upstream takes it: printable ASCII without "="."""
    return bool(name) and all(" " <= char <= "~" and char != "=" for char in name)


def plan_argv(container: PodContainer, declared: Declared, image: ImageConfig) -> tuple[str, ...]:
    """What runs: command over ENTRYPOINT (which hides CMD), args over CMD.

    Of a late container the Pod's words are unexpanded, and the image's escaped.

    :raises AdmissionError: nothing says what to run.
    """
    command = _words(container, "command", declared)
    args = _words(container, "args", declared)
    entrypoint, cmd = image.entrypoint, image.cmd
    if declared.late:
        entrypoint, cmd = tuple(map(escape, entrypoint)), tuple(map(escape, cmd))
    argv = (command or entrypoint) + (args or (() if command else cmd))
    if not argv:
        raise AdmissionError(
            "CreateContainerError",
            f"{container.path}.command",
            "no command specified: neither the Pod nor the image says what to run",
            remedy="set command",
        )
    return argv


def _words(container: PodContainer, field: str, declared: Declared) -> tuple[str, ...]:
    words = get_texts(container.spec, field, container.path)
    if declared.late:
        return words
    lookup: Lookup = declared.lookup
    return tuple(expand(word, lookup) for word in words)
