"""What one container asks for, from its requests and limits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from hpk.model.errors import AdmissionError, ParseError
from hpk.model.resources import ContainerResources
from hpk.planning.base.fields import INVALID, UNSUPPORTED, JsonObject, get_object, get_objects
from hpk.planning.base.quantity import parse_quantity, round_up

CPU = "cpu"
MEMORY = "memory"


def container_resources(
    container: JsonObject, path: str, gpus: Mapping[str, str]
) -> ContainerResources:
    """A container's requests and limits, rounded up to what Slurm counts in.

    :param gpus: resource name → GRES.
    """
    resources = get_object(container, "resources", path)
    amounts: dict[str, dict[str, int]] = {}
    # Limits first: the API server makes requests of limits, and a message names what was written.
    for kind in ("limits", "requests"):
        items = get_object(resources, kind, f"{path}.resources")
        for name in items:
            if name not in (CPU, MEMORY, *gpus):
                raise _unknown(f"{path}.resources.{kind}[{name}]")
        amounts[kind] = {
            name: _amount(name, text, f"{path}.resources.{kind}[{name}]")
            for name, text in items.items()
        }
    requests, limits = amounts["requests"], amounts["limits"]
    counts = {name: limits.get(name, requests.get(name, 0)) for name in gpus}
    asked = [name for name, count in counts.items() if count]
    if len(asked) > 1:
        raise AdmissionError(
            INVALID, f"{path}.resources.limits[{asked[1]}]", f"cannot be combined with {asked[0]}"
        )
    return ContainerResources(
        cpu_request_m=requests.get(CPU, limits.get(CPU)),
        cpu_limit_m=limits.get(CPU),
        memory_request_bytes=requests.get(MEMORY, limits.get(MEMORY)),
        memory_limit_bytes=limits.get(MEMORY),
        gpus=sum(counts.values()),
        gres=gpus[asked[0]] if asked else "gpu",
    )


def _unknown(path: str) -> AdmissionError:
    return AdmissionError(
        UNSUPPORTED,
        path,
        "is not supported yet",
        remedy="remove it, or say under [gpus] of config.toml which GRES it is",
    )


def _amount(name: str, text: object, path: str) -> int:
    try:
        number = parse_quantity(text)
    except ParseError as error:
        raise AdmissionError(INVALID, path, error.message) from error
    return round_up(number * 1000 if name == CPU else number)


def gpu_resource(spec: JsonObject, gpus: Mapping[str, str]) -> str:
    """The name under which the Pod asks for GPUs; the commonest where it asks for none."""
    containers = itertools.chain(
        get_objects(spec, "initContainers", "spec"), get_objects(spec, "containers", "spec")
    )
    for path, container in containers:
        resources = get_object(container, "resources", path)
        for kind in ("limits", "requests"):
            for name in get_object(resources, kind, f"{path}.resources"):
                if name in gpus:
                    return name
    return next(iter(gpus))
