"""A Pod to all that would be submitted for it, and where each line comes from.

`explain` is pure; hpk.report.explaining collects what it needs. It goes the kubelet's own way
(hpk.planning, hpk.render), so what it refuses the cluster refuses, in the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpk.model.errors import AdmissionError, HpkError
from hpk.model.ids import JobName, Nonce
from hpk.model.job import Partition
from hpk.model.layout import AttemptLayout
from hpk.model.plan import ImagePlan, PodPlan
from hpk.planning.admission import admit_pod
from hpk.planning.job.site import SiteSettings
from hpk.planning.plan import plan_admitted_pod
from hpk.render import directive, render_script, script_options
from hpk.report.explain_containers import explain_container, explain_volume
from hpk.report.explanation import Explanation, OptionLine, Refusal
from hpk.report.scheduling import check_required, choose_partition
from hpk.report.stand_ins import unknown_image
from hpk.report.workloads import UID, PodSource

NONCE = "<NONCE>"


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


def explain(source: PodSource, given: Surroundings) -> Explanation:
    """All that would be submitted for a Pod, or why nothing would."""
    metadata = source.pod["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    try:
        check_required(source.pod["spec"])
        admit_pod(source.pod, given.site)
        partition = choose_partition(source.pod, given.partitions)
        images = {
            one["name"]: given.images.get(one["image"]) or unknown_image(source.pod["spec"], one)
            for kind in ("initContainers", "containers")
            for one in source.pod["spec"].get(kind) or ()
        }
        plan = plan_admitted_pod(source.pod, images=images, partition=partition, site=given.site)
        return _explained(source, name, plan, given)
    except HpkError as error:
        refusal = Refusal(
            reason=getattr(error, "reason", "") or "Invalid",
            field=error.field if isinstance(error, AdmissionError) else "",
            message=error.message,
            remedy=error.remedy,
        )
        return Explanation(origin=source.origin, pod=name, notes=source.notes, refusal=refusal)


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
            explain_container(
                one,
                source.pod["spec"],
                specs.get(one.name, {}),
                known=one.image.reference in given.images,
            )
            for one in (*plan.init_containers, *plan.containers)
        ),
        volumes=tuple(explain_volume(one) for one in source.pod["spec"].get("volumes") or ()),
        files=(
            f"{layout.spec}: the plan, read by the supervisor",
            f"{layout.script}: the script above",
            f"{layout.token}: proves to the kubelet whose job it is, 0600",
            f"{layout.record}: how the containers are, written by the supervisor",
            f"{layout.logs}/CONTAINER/N.log: what the containers print",
        ),
    )
