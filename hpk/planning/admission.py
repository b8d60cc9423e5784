"""Refusing what cannot run, with a reason, before anything is submitted.

A whitelist: every field of a Pod that is not named in hpk.planning.known_fields, or where volumes
and variables are planned, is refused by its path, so that a field HPK does not know (yet) is never
silently ignored. What the API server adds to every Pod by itself passes; see docs/pod-fields.md.
"""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.planning.base.containers import PodContainer, all_containers
from hpk.planning.base.fields import INVALID, JsonObject, get_object, get_text, get_texts
from hpk.planning.base.names import plan_names
from hpk.planning.base.whitelist import walk
from hpk.planning.containers.lifecycle import plan_lifecycle
from hpk.planning.containers.probes import plan_probes
from hpk.planning.containers.security import check_security
from hpk.planning.containers.sysctls import plan_sysctls
from hpk.planning.environment.downward import DownwardContext, JobResources
from hpk.planning.environment.environment import declare
from hpk.planning.job.annotations import read_annotations
from hpk.planning.job.effective import each_resources, pod_resources
from hpk.planning.job.flags import parse_flags
from hpk.planning.job.mpi import plan_mpi
from hpk.planning.job.orphan import plan_orphan_timeout
from hpk.planning.job.runtime import plan_runtime
from hpk.planning.job.site import SiteSettings
from hpk.planning.known_fields import EPHEMERAL_CONTAINER, SPEC
from hpk.planning.volumes import VolumeContext, plan_volumes
from hpk.planning.volumes.mounts import plan_mounts


def admit_pod(pod: JsonObject, site: SiteSettings) -> None:
    """Pass, or say what of the Pod cannot run here.

    Needs no image and no Slurm: what depends on them is refused by hpk.planning.plan.

    :raises AdmissionError: reason ``UnsupportedField``, ``InvalidField`` or ``InvalidAnnotation``.
    """
    walk(get_object(pod, "spec", ""), "spec", SPEC)
    annotations = read_annotations(pod)
    if "flags" in annotations:
        parse_flags(annotations["flags"].value, annotations["flags"].field)
    plan_mpi(annotations, site)
    plan_runtime(annotations, site)
    plan_orphan_timeout(pod, annotations)
    _check_names(pod)
    plan_names(pod, site.cluster_domain)
    resources = each_resources(pod, site.gpus)
    pod_resources(pod, resources)
    plan_sysctls(pod)
    downward = DownwardContext(pod=pod, resources=resources, job=JobResources())
    context = VolumeContext(downward=downward, own_directories=site.own_directories)
    volumes = {volume.name: volume for volume in plan_volumes(context)}
    for container in all_containers(pod):
        _check_container(container)
        check_security(pod, container)
        plan_probes(container)
        plan_lifecycle(container)
        plan_mounts(container, declare(container, downward), volumes)


def admit_ephemeral(container: PodContainer) -> None:
    """Pass, or say what of a container that is added to a running Pod cannot be.

    :raises AdmissionError: as admit_pod does.
    """
    walk(container.spec, container.path, EPHEMERAL_CONTAINER)
    _check_container(container)


def _check_names(pod: JsonObject) -> None:
    names: set[str] = set()
    for container in all_containers(pod):
        if container.name in names:
            raise AdmissionError(
                INVALID, f"{container.path}.name", f"{container.name!r} is there twice"
            )
        names.add(container.name)


def _check_container(container: PodContainer) -> None:
    get_text(container.spec, "image", container.path)
    get_texts(container.spec, "command", container.path)
    get_texts(container.spec, "args", container.path)
    for name in ("workingDir", "terminationMessagePath"):
        directory = get_text(container.spec, name, container.path)
        if directory and not directory.startswith("/"):
            raise AdmissionError(INVALID, f"{container.path}.{name}", "must be an absolute path")
