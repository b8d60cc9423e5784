"""The containers of a Pod, in the order they start, and which of them is the main one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.planning.base.fields import INVALID, JsonObject, get_object, get_objects, get_text

MAIN = "main"
"""What Argo calls the container that does a step's work; the others look after it."""
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PodContainer:
    """One container of the spec.

    :param path: of it, ``spec.containers[0]``.
    """

    path: str
    spec: JsonObject
    is_init: bool

    @property
    def name(self) -> str:
        """Its name, which also names directories.

        :raises AdmissionError: it is no DNS label.
        """
        return check_label(self.spec, "name", self.path)

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that goes on beside the others."""
        return self.is_init and self.spec.get("restartPolicy") == "Always"


def init_containers(pod: JsonObject) -> tuple[PodContainer, ...]:
    """Those that run before the others, sidecars among them."""
    return _containers(pod, "initContainers", is_init=True)


def regular_containers(pod: JsonObject) -> tuple[PodContainer, ...]:
    """Those that run together."""
    return _containers(pod, "containers", is_init=False)


def ephemeral_containers(pod: JsonObject) -> tuple[PodContainer, ...]:
    """Those that were added to a Pod since it was made."""
    return _containers(pod, "ephemeralContainers", is_init=False)


def all_containers(pod: JsonObject) -> tuple[PodContainer, ...]:
    """Every container that a Pod is made with, in the order they start."""
    return init_containers(pod) + regular_containers(pod)


def main_container(pod: JsonObject) -> PodContainer:
    """The one named ``main``, else the first: it counts per task and becomes an MPI run's ranks."""
    containers = regular_containers(pod)
    if not containers:
        raise AdmissionError(INVALID, "spec.containers", "must hold a container")
    return next((item for item in containers if item.spec.get("name") == MAIN), containers[0])


def check_label(parent: JsonObject, name: str, path: str) -> str:
    """A DNS label, as upstream validates names that also name files."""
    value = get_text(parent, name, path)
    if _LABEL.fullmatch(value) is None:
        raise AdmissionError(
            INVALID, f"{path}.{name}", f"{value!r} must be lower case letters, digits and '-'"
        )
    return value


def _containers(pod: JsonObject, field: str, *, is_init: bool) -> tuple[PodContainer, ...]:
    spec = get_object(pod, "spec", "")
    return tuple(
        PodContainer(path, container, is_init)
        for path, container in get_objects(spec, field, "spec")
    )
