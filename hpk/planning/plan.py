"""Pod to PodPlan: puts together what the other modules of this room say of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.model.ids import PodRef, PodUid
from hpk.model.job import Partition
from hpk.model.plan import (
    ContainerPlan,
    EmptyDirVolume,
    HostPathVolume,
    ImagePlan,
    MpiPlan,
    PodPlan,
    ProjectedVolume,
    RestartPolicy,
    SbatchOption,
)
from hpk.model.resources import ContainerResources
from hpk.planning.admission import admit_ephemeral, admit_pod
from hpk.planning.base.containers import (
    PodContainer,
    main_container,
    regular_containers,
)
from hpk.planning.base.containers import init_containers as init_containers_of
from hpk.planning.base.fields import JsonObject, get_integer, get_object, get_text
from hpk.planning.base.names import plan_names
from hpk.planning.containers.lifecycle import plan_lifecycle
from hpk.planning.containers.probes import plan_probes, refuse_exec
from hpk.planning.containers.security import check_groups, plan_security
from hpk.planning.containers.sysctls import plan_sysctls
from hpk.planning.containers.terminal import plan_terminal, refuse_terminal
from hpk.planning.environment.downward import DownwardContext, JobResources
from hpk.planning.environment.environment import declare, plan_argv, plan_environment
from hpk.planning.job.annotations import Annotation, read_annotations
from hpk.planning.job.effective import PodResources, each_resources, pod_resources
from hpk.planning.job.fits import check_fits, check_ranks, job_resources
from hpk.planning.job.flags import INVALID_ANNOTATION, parse_flags
from hpk.planning.job.implied import imply_resources, imply_time
from hpk.planning.job.mpi import MpiRequest, plan_mpi
from hpk.planning.job.orphan import plan_orphan_timeout
from hpk.planning.job.resources import gpu_resource
from hpk.planning.job.runtime import plan_runtime
from hpk.planning.job.site import SiteSettings
from hpk.planning.job.tasks import plan_tasks
from hpk.planning.volumes import Volume, VolumeContext, plan_volumes
from hpk.planning.volumes.mounts import plan_mounts

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
    return plan_admitted_pod(pod, images=images, partition=partition, site=site)


def plan_admitted_pod(
    pod: JsonObject,
    *,
    images: Mapping[str, ImagePlan],
    partition: Partition,
    site: SiteSettings,
) -> PodPlan:
    """The same for a Pod that `admit_pod` has just passed: to pass it is half of the work."""
    annotations = read_annotations(pod)
    mpi = plan_mpi(annotations, site)
    spec = get_object(pod, "spec", "")
    ref = _pod_ref(pod)
    resources = each_resources(pod, site.gpus)
    options = _options(pod, annotations, mpi, partition, site, pod_resources(pod, resources))
    downward = DownwardContext(pod=pod, resources=resources, job=job_resources(options, partition))
    context = VolumeContext(downward=downward, own_directories=site.own_directories)
    volumes = plan_volumes(context)
    parts = _Parts(downward, {volume.name: volume for volume in volumes}, images)
    main = main_container(pod).path
    init_containers = tuple(_plan_container(item, parts, None) for item in init_containers_of(pod))
    containers = tuple(
        _plan_container(item, parts, mpi.plan if item.path == main else None)
        for item in regular_containers(pod)
    )
    names = plan_names(pod, site.cluster_domain)
    check_groups(pod, (*init_containers, *containers))
    for item, planned in zip(regular_containers(pod), containers, strict=True):
        if planned.mpi is not None:
            refuse_exec(item)
            refuse_terminal(item)
    return PodPlan(
        pod=ref,
        partition=partition.name,
        options=tuple(options.values()),
        containers=containers,
        volumes=tuple(v for v in volumes if isinstance(v, ProjectedVolume)),
        restart_policy=RestartPolicy(spec.get("restartPolicy") or "Always"),
        grace_period_s=_grace_period_s(spec),
        active_deadline_s=get_integer(spec, "activeDeadlineSeconds", "spec", None),
        runtime=plan_runtime(annotations, site),
        service_account=get_text(spec, "serviceAccountName", "spec") or "default",
        hostname=names.hostname,
        init_containers=init_containers,
        empty_dirs=tuple(v for v in volumes if isinstance(v, EmptyDirVolume)),
        host_paths=tuple(v for v in volumes if isinstance(v, HostPathVolume)),
        nodes=plan_tasks(options).nodes,
        domain=names.domain,
        host_network=names.host_network,
        host_aliases=names.host_aliases,
        shares_processes=spec.get("shareProcessNamespace") is True,
        orphan_timeout_s=plan_orphan_timeout(pod, annotations),
        sysctls=plan_sysctls(pod),
    )


def plan_ephemeral(
    pod: JsonObject, container: PodContainer, image: ImagePlan, plan: PodPlan
) -> ContainerPlan:
    """The plan of a container that is added to a Pod which was planned before.

    :param plan: of the Pod as it was made: what it was given stays.
    :raises AdmissionError: the container can never run here as it is written.
    """
    admit_ephemeral(container)
    resources = {item.name: item.resources for item in plan.all_containers}
    resources[container.name] = ContainerResources()
    downward = DownwardContext(pod=pod, resources=resources, job=JobResources())
    volumes: tuple[Volume, ...] = (*plan.volumes, *plan.empty_dirs, *plan.host_paths)
    parts = _Parts(downward, {item.name: item for item in volumes}, {container.name: image})
    planned = _plan_container(container, parts, None)
    check_groups(pod, (planned,))
    return planned


def _options(
    pod: JsonObject,
    annotations: Mapping[str, Annotation],
    mpi: MpiRequest,
    partition: Partition,
    site: SiteSettings,
    resources: PodResources,
) -> dict[str, SbatchOption]:
    """sbatch's options: the flags', the launcher's, the site's, and what the resources imply."""
    spec = get_object(pod, "spec", "")
    deadline_s = get_integer(spec, "activeDeadlineSeconds", "spec", None)
    options = _flags(annotations.get("flags"), partition)
    for option in mpi.implied:
        options.setdefault(option.name, option)
    defaults = site.options_for(_pod_ref(pod).namespace)
    default_time = defaults.pop("time", None)
    for option in defaults.values():
        options.setdefault(option.name, option)
    check_ranks(options, mpi)
    for option in imply_resources(options, resources, site, partition):
        options[option.name] = option
    check_fits(options, partition, gpu_resource(spec, site.gpus))
    needed_s = None if deadline_s is None else deadline_s + _grace_period_s(spec)
    time = imply_time(options, partition, site, needed_s, default_time)
    if time is not None:
        options[time.name] = time
    options["no-requeue"] = SbatchOption("no-requeue", None, "a Pod never runs twice")
    return options


def _grace_period_s(spec: JsonObject) -> int:
    grace_s = get_integer(spec, "terminationGracePeriodSeconds", "spec", DEFAULT_GRACE_PERIOD_S)
    return DEFAULT_GRACE_PERIOD_S if grace_s is None else grace_s


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


@dataclass(frozen=True, slots=True)
class _Parts:
    """What containers are planned from."""

    downward: DownwardContext
    volumes: Mapping[str, Volume]
    images: Mapping[str, ImagePlan]


def _plan_container(container: PodContainer, parts: _Parts, mpi: MpiPlan | None) -> ContainerPlan:
    spec, path = container.spec, container.path
    image = parts.images[container.name]
    security = plan_security(parts.downward.pod, container, image)
    declared = declare(container, parts.downward)
    terminal = plan_terminal(container)
    return ContainerPlan(
        name=container.name,
        image=image,
        argv=plan_argv(container, declared, image.config),
        env=plan_environment(declared, image.config),
        working_dir=get_text(spec, "workingDir", path) or image.config.working_dir,
        uid=security.uid,
        gid=security.gid,
        mounts=plan_mounts(container, declared, parts.volumes),
        resources=parts.downward.resources[container.name],
        termination_message_path=get_text(spec, "terminationMessagePath", path)
        or "/dev/termination-log",
        termination_message_policy=get_text(spec, "terminationMessagePolicy", path) or "File",
        mpi=mpi,
        env_from=declared.env_from,
        late=declared.late,
        restart_always=container.is_sidecar,
        read_only_root=security.read_only_root,
        selinux=security.selinux,
        rights=security.rights,
        probes=plan_probes(container),
        lifecycle=plan_lifecycle(container),
        stdin=terminal.stdin,
        stdin_once=terminal.stdin_once,
        tty=terminal.tty,
    )
