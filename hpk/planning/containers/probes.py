"""A container's probes, upstream's defaults filled in. Pure.

Source: k8s.io/kubernetes, pkg/apis/core/v1/defaults.go (SetDefaults_Probe), pkg/kubelet/prober.
"""

from __future__ import annotations

from dataclasses import replace

from hpk.model.errors import AdmissionError
from hpk.model.handlers import ContainerProbes, Handler, ProbePlan
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import INVALID, UNSUPPORTED, get_integer, get_object, get_objects
from hpk.planning.containers.handlers import plan_handler
from hpk.planning.environment.expansion import expand

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def plan_probes(container: PodContainer) -> ContainerProbes:
    """What the container is asked while it runs.

    :raises AdmissionError: a probe that nobody could run.
    """
    if container.is_init and not container.is_sidecar:
        # The API server lets none through.
        for name in PROBES:
            if container.spec.get(name):
                field = f"{container.path}.{name}"
                raise AdmissionError(
                    UNSUPPORTED, field, "of init containers only a sidecar has one"
                )
    return ContainerProbes(
        startup=_plan_probe(container, "startupProbe"),
        liveness=_plan_probe(container, "livenessProbe"),
        readiness=_plan_probe(container, "readinessProbe"),
    )


def refuse_exec(container: PodContainer) -> None:
    """Refuse commands in a container that is not the supervisor's to enter: ranks are Slurm's."""
    lifecycle = get_object(container.spec, "lifecycle", container.path)
    path = f"{container.path}.lifecycle"
    places = [
        (f"{container.path}.{n}", get_object(container.spec, n, container.path)) for n in PROBES
    ]
    places += [(f"{path}.{n}", get_object(lifecycle, n, path)) for n in ("postStart", "preStop")]
    for field, action in places:
        if action.get("exec"):
            raise AdmissionError(
                UNSUPPORTED,
                f"{field}.exec",
                "is not supported in the container of an MPI run",
                remedy="use httpGet, or another container",
            )


def _plan_probe(container: PodContainer, name: str) -> ProbePlan | None:
    probe, path = get_object(container.spec, name, container.path), f"{container.path}.{name}"
    if not probe:
        return None
    handler = plan_handler(container, probe, path)
    if handler is None:
        raise AdmissionError(INVALID, path, "says nothing of what to do", remedy="add httpGet")

    def number(field: str, default: int) -> int:
        return get_integer(probe, field, path, None) or default

    return ProbePlan(
        handler=_with_known_values(container, handler),
        initial_delay_s=number("initialDelaySeconds", 0),
        period_s=number("periodSeconds", 10),
        timeout_s=number("timeoutSeconds", 1),
        success_threshold=number("successThreshold", 1),
        failure_threshold=number("failureThreshold", 3),
        grace_period_s=get_integer(probe, "terminationGracePeriodSeconds", path, None),
    )


def _with_known_values(container: PodContainer, handler: Handler) -> Handler:
    """Expand ``$(NAME)`` in a probe's command, from plain values as they are written alone
    (ExpandContainerCommandOnlyStatic in pkg/kubelet/container/helpers.go)."""
    values = {
        str(item.get("name")): str(item.get("value") or "")
        for _, item in get_objects(container.spec, "env", container.path)
    }
    return replace(handler, exec=tuple(expand(word, values.get) for word in handler.exec))
