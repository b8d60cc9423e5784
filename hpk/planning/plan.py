"""Pod to PodPlan: puts together what the other modules of this room say of its parts."""

from __future__ import annotations

from collections.abc import Mapping

from hpk.model.errors import AdmissionError
from hpk.model.ids import PodRef, PodUid
from hpk.model.job import Partition
from hpk.model.plan import (
    ContainerPlan,
    ImagePlan,
    MpiPlan,
    PodPlan,
    RestartPolicy,
    SbatchOption,
)
from hpk.planning.admission import admit_pod
from hpk.planning.annotations import Annotation, read_annotations
from hpk.planning.environment import plan_argv, plan_environment
from hpk.planning.fields import JsonObject, get_integer, get_object, get_objects, get_text
from hpk.planning.fits import check_fits, check_ranks
from hpk.planning.flags import INVALID_ANNOTATION, parse_flags
from hpk.planning.implied import imply_resources, imply_time
from hpk.planning.mpi import plan_mpi
from hpk.planning.resources import container_resources, gpu_resource
from hpk.planning.runtime import plan_runtime
from hpk.planning.site import SiteSettings
from hpk.planning.users import resolve_user
from hpk.planning.volumes import plan_mounts, plan_volumes

DEFAULT_GRACE_PERIOD_S = 30


def plan_pod(
    pod: JsonObject,
    *,
    images: Mapping[str, ImagePlan],
    partition: Partition,
    site: SiteSettings,
) -> PodPlan:
    """The plan of a Pod bound to the virtual node of ``partition``.

    :param pod: the Pod as the API server gives it (``v1.Pod`` as JSON).
    :param images: each container's image, by the container's name.
    :raises AdmissionError: the Pod can never run here as it is written.
    """
    admit_pod(pod, site)
    annotations = read_annotations(pod)
    mpi = plan_mpi(annotations, site)
    spec = get_object(pod, "spec", "")
    containers = tuple(
        _plan_container(container, path, images, mpi.plan, site)
        for path, container in get_objects(spec, "containers", "spec")
    )
    deadline_s = get_integer(spec, "activeDeadlineSeconds", "spec", None)
    grace_s = get_integer(spec, "terminationGracePeriodSeconds", "spec", DEFAULT_GRACE_PERIOD_S)
    grace_s = DEFAULT_GRACE_PERIOD_S if grace_s is None else grace_s
    options = _flags(annotations.get("flags"), partition)
    for option in mpi.implied:
        options.setdefault(option.name, option)
    defaults = site.options_for(_pod_ref(pod).namespace)
    default_time = defaults.pop("time", None)
    for option in defaults.values():
        options.setdefault(option.name, option)
    check_ranks(options, mpi)
    for option in imply_resources(options, containers[0].resources, "spec.containers[0]", site):
        options[option.name] = option
    check_fits(options, partition, gpu_resource(spec, site.gpus))
    needed_s = None if deadline_s is None else deadline_s + grace_s
    time = imply_time(options, partition, site, needed_s, default_time)
    if time is not None:
        options[time.name] = time
    options["no-requeue"] = SbatchOption("no-requeue", None, "a Pod never runs twice")
    return PodPlan(
        pod=_pod_ref(pod),
        partition=partition.name,
        options=tuple(options.values()),
        containers=containers,
        volumes=plan_volumes(pod),
        restart_policy=RestartPolicy(spec.get("restartPolicy") or "Always"),
        grace_period_s=grace_s,
        active_deadline_s=deadline_s,
        runtime=plan_runtime(annotations, site),
        service_account=get_text(spec, "serviceAccountName", "spec") or "default",
    )


def _pod_ref(pod: JsonObject) -> PodRef:
    metadata = get_object(pod, "metadata", "")
    return PodRef(
        namespace=get_text(metadata, "namespace", "metadata"),
        name=get_text(metadata, "name", "metadata"),
        uid=PodUid(get_text(metadata, "uid", "metadata")),
    )


def _flags(annotation: Annotation | None, partition: Partition) -> dict[str, SbatchOption]:
    """The flags' options; the partition is the virtual node's, so it may only agree."""
    if annotation is None:
        return {}
    options = {option.name: option for option in parse_flags(annotation.value, annotation.field)}
    asked = options.pop("partition", None)
    if asked is not None and asked.value != partition.name:
        raise AdmissionError(
            INVALID_ANNOTATION,
            annotation.field,
            f"--partition={asked.value}, but the Pod is bound to the virtual node of partition"
            f" {partition.name}",
            remedy="choose the partition by nodeSelector instead of --partition",
        )
    return options


def _plan_container(
    container: JsonObject,
    path: str,
    images: Mapping[str, ImagePlan],
    mpi: MpiPlan | None,
    site: SiteSettings,
) -> ContainerPlan:
    name = get_text(container, "name", path)
    image = images[name]
    uid, gid = resolve_user(image, path)
    return ContainerPlan(
        name=name,
        image=image,
        argv=plan_argv(container, path, image.config),
        env=plan_environment(container, path, image.config),
        working_dir=get_text(container, "workingDir", path) or image.config.working_dir,
        uid=uid,
        gid=gid,
        mounts=plan_mounts(container, path),
        resources=container_resources(container, path, site.gpus),
        termination_message_path=get_text(container, "terminationMessagePath", path)
        or "/dev/termination-log",
        termination_message_policy=get_text(container, "terminationMessagePolicy", path) or "File",
        mpi=mpi,
    )
