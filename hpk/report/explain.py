"""A Pod to all that would be submitted for it, and where each line comes from.

`explain` is pure; hpk.report.explaining collects what it needs. It goes the kubelet's own way
(hpk.planning, hpk.render), so what it refuses the cluster refuses, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpk.model.errors import AdmissionError, HpkError
from hpk.model.ids import JobName, Nonce
from hpk.model.job import Partition
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ContainerPlan, ImageConfig, ImagePlan, PodPlan
from hpk.planning.admission import admit_pod
from hpk.planning.plan import plan_pod
from hpk.planning.site import SiteSettings
from hpk.render import directive, render_script, script_options
from hpk.report.workloads import UID, PodSource
from kubelet.node import node_labels, plan_node_names

NONCE = "<NONCE>"
_ANY_NODE = 1 << 20
_ANYBODY = 1000
"""A uid that is not root's, for an image that must have one."""

ANY_PARTITION = Partition(
    name="<PARTITION>",
    is_default=True,
    is_up=True,
    nodes=("",) * 4096,
    max_time_s=None,
    default_time_s=None,
    default_memory_per_cpu_bytes=None,
    default_memory_per_node_bytes=None,
    total_cpus=4096 * _ANY_NODE,
    total_memory_bytes=1 << 62,
    gpus=4096 * _ANY_NODE,
    max_node_cpus=_ANY_NODE,
    max_node_memory_bytes=1 << 60,
    max_node_gpus=_ANY_NODE,
    features=(),
)
"""Stands for the partition where Slurm was not asked: there is room for everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the explanation depends on besides the Pod.

    :param partitions: empty where Slurm was not asked.
    :param images: by reference, those that are in the cache.
    :param pods_directory: ``$HPK_HOME/pods``; python and supervisor are absolute paths too.
    """

    site: SiteSettings
    partitions: Sequence[Partition]
    images: Mapping[str, ImagePlan]
    pods_directory: str
    python: str
    supervisor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the Pod would not run, as its status would say."""

    reason: str
    field: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionLine:
    """One ``#SBATCH`` line and what asked for it."""

    line: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What would run. ``env`` values that only the cluster knows are given as ``<…>``."""

    name: str
    image: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    user: str
    mounts: tuple[str, ...]
    mpi: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One Pod, explained; ``refusal`` or all the rest."""

    origin: str
    pod: str
    notes: tuple[str, ...]
    partition: str = ""
    runtime: str = ""
    refusal: Refusal | None = None
    script: str = ""
    options: tuple[OptionLine, ...] = ()
    containers: tuple[Container, ...] = ()
    volumes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def explain(source: PodSource, given: Surroundings) -> Explanation:
    """All that would be submitted for a Pod, or why nothing would."""
    metadata = source.pod["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    try:
        check_required(source.pod["spec"])
        admit_pod(source.pod, given.site)
        partition = choose_partition(source.pod, given)
        images = {
            one["name"]: given.images.get(one["image"]) or unknown_image(source.pod["spec"], one)
            for kind in ("initContainers", "containers")
            for one in source.pod["spec"].get(kind) or ()
        }
        plan = plan_pod(source.pod, images=images, partition=partition, site=given.site)
        return _explained(source, name, plan, given)
    except HpkError as error:
        refusal = Refusal(
            reason=getattr(error, "reason", "") or "Invalid",
            field=error.field if isinstance(error, AdmissionError) else "",
            message=error.message,
            remedy=error.remedy,
        )
        return Explanation(origin=source.origin, pod=name, notes=source.notes, refusal=refusal)


def check_required(spec: Mapping[str, Any]) -> None:
    """Refuse what the API server would not take, as far as the rest relies on it.

    :raises AdmissionError: reason ``Invalid``, in the API server's words.
    """
    for kind in ("initContainers", "containers"):
        containers = spec.get(kind) or []
        if not isinstance(containers, list) or (kind == "containers" and not containers):
            raise AdmissionError("Invalid", f"spec.{kind}", "Required value: a list of containers")
        for index, one in enumerate(containers):
            for name in ("name", "image"):
                value = one.get(name) if isinstance(one, dict) else None
                if not isinstance(value, str) or not value:
                    raise AdmissionError(
                        "Invalid", f"spec.{kind}[{index}].{name}", "Required value"
                    )


def choose_partition(pod: Mapping[str, Any], given: Surroundings) -> Partition:
    """The partition of the virtual node that the scheduler would choose.

    :raises AdmissionError: ``Unschedulable``, where no node fits the nodeSelector.
    """
    nodes = plan_node_names(given.partitions)
    selector = pod["spec"].get("nodeSelector") or {}
    wanted = set(selector.items()) if isinstance(selector, dict) else set()
    fitting = [p for name, p in nodes.items() if wanted <= set(node_labels(name, p).items())]
    if not nodes:
        return ANY_PARTITION
    if not fitting:
        raise AdmissionError(
            "Unschedulable",
            "spec.nodeSelector",
            f"no virtual node fits: there are {', '.join(nodes)}",
            remedy="kubectl get nodes --show-labels shows what can be chosen",
        )
    return next((p for p in fitting if p.is_default), fitting[0])


def unknown_image(spec: Mapping[str, Any], container: Mapping[str, Any]) -> ImagePlan:
    """Stands for an image that was not pulled.

    Its USER is taken to be one that the Pod's securityContext allows: what the image has decides
    when the Pod is submitted.
    """
    reference = container["image"]
    uid = _asked(spec, container, "runAsUser")
    if uid is None:
        uid = _ANYBODY if _asked(spec, container, "runAsNonRoot") else 0
    gid = _asked(spec, container, "fsGroup")
    groups = f"anybody:x:{uid}:{0 if gid is None else gid}::/:\n"
    return ImagePlan(
        reference=reference,
        image_id="",
        path="",
        config=ImageConfig(
            entrypoint=(f"<ENTRYPOINT of {reference}>",),
            cmd=(f"<CMD of {reference}>",),
            env=(("PATH", f"<PATH of {reference}>"),),
            user=str(uid),
        ),
        passwd=groups,
    )


def _asked(spec: Mapping[str, Any], container: Mapping[str, Any], name: str) -> Any:
    """A field of the container's securityContext, else of the Pod's; None where it is in none."""
    contexts = [parent.get("securityContext") for parent in (container, spec)]
    found = (context.get(name) for context in contexts if isinstance(context, dict))
    return next((value for value in found if value is not None), None)


def _explained(source: PodSource, name: str, plan: PodPlan, given: Surroundings) -> Explanation:
    layout = AttemptLayout(f"{given.pods_directory}/{UID}/attempts/{NONCE}")
    job_name = str(JobName(plan.pod.namespace, plan.pod.name, Nonce(NONCE)))
    script = render_script(
        plan, job_name=job_name, layout=layout, python=given.python, supervisor=given.supervisor
    )
    options = script_options(plan, job_name=job_name, layout=layout)
    specs = {
        one["name"]: one
        for kind in ("initContainers", "containers")
        for one in source.pod["spec"].get(kind) or ()
    }
    planned = (*getattr(plan, "init_containers", ()), *plan.containers)
    notes = list(source.notes)
    if not given.partitions:
        notes.append("Slurm was not asked: time limits and the sizes of nodes are not known")
    missing = sorted({s["image"] for s in specs.values() if s["image"] not in given.images})
    notes += [f"{image} was not pulled: what it says is given as <…>" for image in missing]
    return Explanation(
        origin=source.origin,
        pod=name,
        notes=tuple(notes),
        partition=plan.partition,
        runtime=plan.runtime,
        script=script,
        options=tuple(OptionLine(line=directive(o), origin=o.origin) for o in options),
        containers=tuple(
            _container(one, source.pod["spec"], specs.get(one.name, {}), given) for one in planned
        ),
        volumes=tuple(_volume(one) for one in source.pod["spec"].get("volumes") or ()),
        files=(
            f"{layout.spec}: the plan, read by the supervisor",
            f"{layout.script}: the script above",
            f"{layout.token}: proves to the kubelet whose job it is, 0600",
            f"{layout.record}: how the containers are, written by the supervisor",
            f"{layout.logs}/CONTAINER/N.log: what the containers print",
        ),
    )


def _user_of_unknown(plan: ContainerPlan, pod: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """What the Pod says of the user itself, and for the rest that the image has a say."""
    if _asked(pod, spec, "runAsUser") is None:
        return f"<USER of {plan.image.reference}>"
    if _asked(pod, spec, "runAsGroup") is None:
        return f"{plan.uid}:<group in {plan.image.reference}>"
    return f"{plan.uid}:{plan.gid}"


def _container(
    plan: ContainerPlan, pod: Mapping[str, Any], spec: Mapping[str, Any], given: Surroundings
) -> Container:
    known = plan.image.reference in given.images
    return Container(
        name=plan.name,
        image=plan.image.reference,
        argv=plan.argv,
        env=(
            *((one.name, one.value) for one in plan.env if one.source is None),
            *_references(plan, spec),
        ),
        working_dir=plan.working_dir
        or ("/" if known else f"<WorkingDir of {plan.image.reference}>"),
        user=f"{plan.uid}:{plan.gid}" if known else _user_of_unknown(plan, pod, spec),
        mounts=tuple(_mount(one) for one in spec.get("volumeMounts") or ()),
        mpi=() if plan.mpi is None else (plan.mpi.launcher, *plan.mpi.options),
    )


def _references(plan: ContainerPlan, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Variables whose values only the cluster knows."""
    planned = {one.name for one in plan.env if one.source is None}
    found = []
    for one in spec.get("envFrom") or ():
        kind = next((key for key in ("configMapRef", "secretRef") if key in one), "")
        source = (one.get(kind) or {}).get("name", "")
        found.append((f"{one.get('prefix', '')}*", f"<every key of {kind[:-3]} {source}>"))
    for one in spec.get("env") or ():
        if one.get("valueFrom") and one.get("name") not in planned:
            (kind, source), *_ = one["valueFrom"].items()
            detail = " ".join(str(value) for value in source.values())
            found.append((one["name"], f"<{kind} {detail}>"))
    return found


def _mount(mount: Mapping[str, Any]) -> str:
    inside = f"/{mount['subPath']}" if mount.get("subPath") else ""
    how = ", read-only" if mount.get("readOnly") else ""
    return f"{mount.get('mountPath')}: volume {mount.get('name')}{inside}{how}"


def _volume(volume: Mapping[str, Any]) -> str:
    kind = next((key for key in volume if key != "name"), "emptyDir")
    source = volume.get(kind) or {}
    sources = source.get("sources") if kind == "projected" else [{kind: source}]
    parts = [_source(key, value or {}) for one in sources or () for key, value in one.items()]
    return f"{volume.get('name')}: {'; '.join(parts)}"


def _source(kind: str, source: Mapping[str, Any]) -> str:
    name = source.get("name") or source.get("secretName") or source.get("path") or ""
    items = [str(one.get("path")) for one in source.get("items") or ()]
    text = f"{kind} {name}".strip()
    return f"{text} ({', '.join(items)})" if items else text
