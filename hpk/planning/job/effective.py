"""What a Pod's containers ask for together: upstream's effective request, split for Slurm.

Regular containers and sidecars run together; each init container runs beside the sidecars that
were started before it; the Pod needs the larger of both, for each resource. The main container is
kept apart, because it counts per task and everything else once. Source: k8s.io/component-helpers,
resource/helpers.go (AggregateContainerRequests).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.model.resources import ContainerResources
from hpk.planning.base.containers import all_containers, main_container
from hpk.planning.base.fields import INVALID, JsonObject, get_object
from hpk.planning.job.resources import container_resources


@dataclass(frozen=True, slots=True)
class Amounts:
    """CPU in thousandths, memory in bytes (the limit, else the request), whole GPUs."""

    cpu_m: int = 0
    memory_bytes: int = 0
    gpus: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.cpu_m + other.cpu_m,
            self.memory_bytes + other.memory_bytes,
            self.gpus + other.gpus,
        )

    def larger(self, other: Amounts) -> Amounts:
        """The larger of both, resource by resource."""
        return Amounts(
            max(self.cpu_m, other.cpu_m),
            max(self.memory_bytes, other.memory_bytes),
            max(self.gpus, other.gpus),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodResources:
    """A Pod's resources.

    :param main: of the main container, at ``path``.
    :param beside: of all that runs beside it, together.
    :param before: the most that is needed before it starts.
    :param gres: what Slurm calls the Pod's GPUs.
    """

    main: ContainerResources
    path: str
    beside: Amounts = Amounts()
    before: Amounts = Amounts()
    gres: str = "gpu"

    @property
    def is_alone(self) -> bool:
        """Whether the main container is all there is to ask for."""
        return self.beside == Amounts() == self.before


def each_resources(pod: JsonObject, gpus: Mapping[str, str]) -> dict[str, ContainerResources]:
    """Each container's resources, by name.

    :param gpus: resource name → GRES.
    """
    return {
        container.name: container_resources(container.spec, container.path, gpus)
        for container in all_containers(pod)
    }


def pod_resources(pod: JsonObject, each: Mapping[str, ContainerResources]) -> PodResources:
    """The effective request.

    :raises AdmissionError: containers ask for different GPUs.
    """
    main = main_container(pod)
    sidecars = beside = before = Amounts()
    overhead = get_object(get_object(pod, "spec", ""), "overhead", "spec")
    if overhead:
        # What a RuntimeClass adds for the runtime itself, once.
        as_container = {"resources": {"requests": overhead}}
        beside += _amounts(container_resources(as_container, "spec.overhead", {}))
    gres = ""
    for container in all_containers(pod):
        resources = each[container.name]
        if resources.gpus and gres not in ("", resources.gres):
            raise AdmissionError(
                INVALID,
                f"{container.path}.resources.limits",
                "asks for other GPUs than the containers before it",
            )
        gres = resources.gres if resources.gpus else gres
        asked = _amounts(resources)
        if container.is_sidecar:
            sidecars += asked
            before = before.larger(sidecars)
        elif container.is_init:
            before = before.larger(sidecars + asked)
        elif container.path != main.path:
            beside += asked
    return PodResources(
        main=each[main.name],
        path=main.path,
        beside=beside + sidecars,
        before=before,
        gres=gres or "gpu",
    )


def _amounts(resources: ContainerResources) -> Amounts:
    return Amounts(
        resources.cpu_request_m or 0,
        resources.memory_limit_bytes or resources.memory_request_bytes or 0,
        resources.gpus,
    )
