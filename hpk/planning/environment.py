"""A container's environment and command line: upstream's expansion and merge rules.

``$(NAME)`` is replaced by the value of a variable declared earlier, ``$$`` is an escaped ``$``,
anything else stays as it is. Source: k8s.io/kubernetes, third_party/forked/golang/expansion and
pkg/kubelet/kubelet_pods.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpk.model.errors import AdmissionError
from hpk.model.plan import EnvVar, ImageConfig
from hpk.planning.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_objects,
    get_text,
    get_texts,
)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_IN_JOB_ONLY = ("KUBERNETES_SERVICE_", "KUBERNETES_PORT")


def expand(text: str, lookup: Callable[[str], str | None]) -> str:
    """Replace each ``$(NAME)`` that ``lookup`` knows; unknown ones stay as they are written."""
    parts: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
        parts.append(text[position:dollar])
        following = text[dollar + 1]
        position = dollar + 2
        if following == "$":
            parts.append("$")
        elif following != "(":
            parts.append("$" + following)
        elif (end := text.find(")", position)) < 0:
            parts.append("$(")
        else:
            name = text[position:end]
            value = lookup(name)
            parts.append(f"$({name})" if value is None else value)
            position = end + 1
    return "".join(parts) + text[position:]


def plan_environment(container: JsonObject, path: str, image: ImageConfig) -> tuple[EnvVar, ...]:
    """The image's variables, then the Pod's with their references expanded."""
    declared = pod_environment(container, path)
    env = [EnvVar(name, value) for name, value in image.env]
    env.extend(EnvVar(name, value) for name, value in declared.items())
    if all(variable.name != "PATH" for variable in env):
        env.insert(0, EnvVar("PATH", DEFAULT_PATH))
    return tuple(env)


def pod_environment(container: JsonObject, path: str) -> dict[str, str]:
    """The container's own variables, expanded in the order they are declared."""
    declared: dict[str, str] = {}
    for item_path, item in get_objects(container, "env", path):
        name = get_text(item, "name", item_path)
        if not is_variable_name(name):
            raise AdmissionError(
                INVALID, f"{item_path}.name", f"{name!r} cannot name an environment variable"
            )
        value = get_text(item, "value", item_path)
        declared[name] = expand(value, _lookup(declared, f"{item_path}.value"))
    return declared


def is_variable_name(name: str) -> bool:
    """Whether upstream takes it: printable ASCII without "="."""
    return bool(name) and all(" " <= char <= "~" and char != "=" for char in name)


def plan_argv(container: JsonObject, path: str, image: ImageConfig) -> tuple[str, ...]:
    """What runs: command over ENTRYPOINT (which hides CMD), args over CMD.

    :raises AdmissionError: nothing says what to run.
    """
    declared = pod_environment(container, path)
    command = _expanded(container, "command", path, declared)
    args = _expanded(container, "args", path, declared)
    argv = (command or image.entrypoint) + (args or (() if command else image.cmd))
    if not argv:
        raise AdmissionError(
            "CreateContainerError",
            f"{path}.command",
            "no command specified: neither the Pod nor the image says what to run",
            remedy="set command",
        )
    return argv


def _expanded(
    container: JsonObject, name: str, path: str, declared: Mapping[str, str]
) -> tuple[str, ...]:
    return tuple(
        expand(text, _lookup(declared, f"{path}.{name}[{index}]"))
        for index, text in enumerate(get_texts(container, name, path))
    )


def _lookup(declared: Mapping[str, str], path: str) -> Callable[[str], str | None]:
    def lookup(name: str) -> str | None:
        if name not in declared and name.startswith(_IN_JOB_ONLY):
            raise AdmissionError(
                UNSUPPORTED,
                path,
                f"$({name}) is known only where the container runs",
                remedy=f"let the program read {name} from its environment",
            )
        return declared.get(name)

    return lookup
