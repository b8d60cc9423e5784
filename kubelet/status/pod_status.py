"""v1.PodStatus from what is known of a pod. Pure.

Source: pkg/kubelet/kubelet_pods.go (generateAPIPodStatus).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpk.model.job import JobObservation
from hpk.model.plan import ImagePlan
from kubelet.api.apiserver import Json
from kubelet.api.meta_time import rfc3339
from kubelet.evidence.observations import Observation
from kubelet.evidence.outcome import Outcome
from kubelet.status.container_statuses import (
    Held,
    StatusSources,
    Waiting,
    container_statuses,
    ephemeral_statuses,
)
from kubelet.status.pod_conditions import pod_conditions
from kubelet.status.pod_phase import TERMINAL, pod_phase


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusInput:
    """All that a status is made of.

    :param waiting: for containers the supervisor has not spoken of.
    :param images: of the plan, by container name; empty before there is one.
    :param submitted: the pod is a Slurm job.
    :param refusal: why the pod cannot run here as things are, None where it can.
    :param ephemeral: what keeps ephemeral containers from running.
    :param now: RFC 3339.
    """

    pod: Mapping[str, Any]
    seen: Observation
    outcome: Outcome | None
    waiting: Waiting
    images: Mapping[str, ImagePlan]
    runtime: str
    now: str
    submitted: bool = True
    refusal: Waiting | None = None
    ephemeral: Held = Held()  # noqa: RUF009 - it is frozen


def queue_waiting(job: JobObservation | None) -> Waiting:
    """How a queued job reads in ``kubectl get pods`` and ``describe``."""
    if job is None or not job.state.is_queued or job.reason in ("", "None"):
        return Waiting()
    message = f"Slurm job {job.job_id} is queued: {job.reason}"
    if job.start_time_s is not None:
        message += f", expected to start {rfc3339(job.start_time_s)}"
    return Waiting(reason=f"Slurm{job.reason}", message=message)


def compute_status(given: StatusInput) -> Json:
    """The whole status of the Pod, conditions of other writers kept."""
    old: Mapping[str, Any] = given.pod.get("status") or {}
    record = given.seen.record
    sources = StatusSources(
        spec=given.pod["spec"],
        old=old,
        record=record,
        outcome=given.outcome,
        waiting=given.waiting,
        images=given.images,
        runtime=given.runtime,
        ended_at_s=given.seen.job.end_time_s if given.seen.job is not None else None,
        submitted=given.submitted,
    )
    init, containers = container_statuses(sources)
    by_name = {status["name"]: status for status in (*init, *containers)}
    phase = _phase(given, old, by_name)
    status: Json = {
        "phase": phase,
        "startTime": old.get("startTime") or given.now,
        "containerStatuses": containers,
        "conditions": pod_conditions(
            given.pod,
            phase,
            by_name,
            has_sandbox=record is not None,
            refusal=given.refusal,
            now=given.now,
        ),
        "observedGeneration": given.pod["metadata"].get("generation"),
    }
    if init:
        status["initContainerStatuses"] = init
    if old.get("phase") in TERMINAL:
        # Why it ended, as it was first told: what becomes of the job afterwards is another matter.
        status |= {name: old[name] for name in ("reason", "message") if old.get(name)}
    elif given.outcome is not None and given.outcome.reason:
        status |= {"reason": given.outcome.reason, "message": given.outcome.message}
    if ephemeral := ephemeral_statuses(sources, given.ephemeral):
        status["ephemeralContainerStatuses"] = ephemeral
    host_ip = record.host_ip if record is not None else ""
    pod_ips = (record.pod_ips if record is not None else ()) or (host_ip,)
    if host_ip:
        # Pods are on their node's own network.
        status |= {
            "hostIP": host_ip,
            "hostIPs": [{"ip": host_ip}],
            "podIP": pod_ips[0],
            "podIPs": [{"ip": address} for address in pod_ips],
        }
    if old.get("qosClass"):
        status["qosClass"] = old["qosClass"]
    return status


def _phase(given: StatusInput, old: Mapping[str, Any], statuses: Mapping[str, Json]) -> str:
    """A terminal phase, once reported, never changes."""
    reported = str(old.get("phase") or "Pending")
    if reported in TERMINAL:
        return reported
    if given.outcome is not None:
        return "Succeeded" if given.outcome.succeeded else "Failed"
    return pod_phase(given.pod["spec"], statuses)


def rejected_status(pod: Mapping[str, Any], reason: str, message: str, now: str) -> Json:
    """The status of a Pod that admission refused (kubelet.go, rejectPod)."""
    old: Mapping[str, Any] = pod.get("status") or {}
    return {
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "startTime": old.get("startTime") or now,
        "conditions": list(old.get("conditions") or []),
        "qosClass": old.get("qosClass"),
        "observedGeneration": pod["metadata"].get("generation"),
    }
