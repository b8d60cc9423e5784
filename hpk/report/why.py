"""Why a Pod does not run, or how it ended: one paragraph and the next thing to try. Pure.

hpk.report.asking collects the facts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpk.journal import Attempt
from hpk.report.queue_reasons import queue_reason
from hpk.slurm.usage import JobUsage

Json = Mapping[str, Any]

_ENDINGS = {
    "OOMKilled": "raise resources.limits.memory (or --mem in the flags annotation)",
    "SlurmTimeout": "raise --time in the flags annotation, or choose a partition that allows more",
    "DeadlineExceeded": "raise activeDeadlineSeconds",
    "SlurmNodeFail": "start it again: the node failed, not the Pod; sinfo -R says what it has",
    "SlurmBootFail": "start it again, and tell the administrators of the node",
    "SlurmPreempted": "start it again, or choose a partition or QOS that is not preempted",
    "SlurmCancelled": "find out who cancelled it: sacct -j {job} -o State%30,User",
    "SlurmRequeued": "create the Pod again; a controller (Job, Deployment) does that by itself",
    "SlurmJobLost": "ask the administrators what became of Slurm job {job}",
    "SlurmFailed": "read the supervisor's log: {log}",
    "StartError": "read the supervisor's log: {log}",
    "ControlPlaneLost": "keep the control plane up, raise control-plane.orphan-timeout-s, or give"
    " the Pod the annotation slurm-job.hpk.io/orphan-timeout: never",
}
_EXIT_CODES = {
    126: "the command is there but cannot be executed",
    127: "there is no such command in the image",
    134: "it aborted (SIGABRT)",
    137: "it was killed (SIGKILL)",
    139: "it crashed (SIGSEGV)",
    143: "it was told to stop (SIGTERM)",
}
_STARTING = ("", "PodInitializing", "ContainerCreating")
_PULLS = {
    "InvalidImageName": "correct the image's name",
    "ErrImageNeverPull": "hpk images pull IMAGE, or choose another imagePullPolicy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of a Pod.

    :param pod: None where the API server was not asked, or has none.
    :param api_problem: why the API server was not asked.
    :param attempt: the current one; None where nothing was submitted.
    :param refusal: sbatch's words about the last attempt, where it refused that.
    :param job: None where neither squeue nor sacct knows it.
    :param log: the supervisor's own log.
    """

    name: str
    namespace: str
    pod: Json | None = None
    events: Sequence[Json] = ()
    api_problem: str = ""
    slurm_problem: str = ""
    attempt: Attempt | None = None
    refusal: str = ""
    job: JobUsage | None = None
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The answer."""

    pod: str
    text: str
    next: str


def explain_why(facts: Facts) -> Why:
    """What is known of the Pod in a paragraph, and what to try next."""
    sentences, then = _answer(facts)
    if facts.api_problem:
        sentences.append(f"Of Kubernetes nothing is known: {facts.api_problem}.")
        then = then or "hpk up"
    if facts.slurm_problem:
        sentences.append(f"Slurm does not answer: {facts.slurm_problem}.")
    job = str(facts.attempt.job_id) if facts.attempt and facts.attempt.job_id else "JOB"
    then = then.replace("{job}", job).replace("{log}", facts.log or "job.log")
    return Why(pod=f"{facts.namespace}/{facts.name}", text=" ".join(sentences), next=then)


def _answer(facts: Facts) -> tuple[list[str], str]:
    if facts.pod is None:
        return _without_pod(facts)
    status = facts.pod.get("status") or {}
    if facts.pod["metadata"].get("deletionTimestamp"):
        return _deleting(facts)
    phase = status.get("phase")
    if phase == "Succeeded":
        return [f"{_subject(facts)} succeeded.", *_job_sentences(facts)], _logs(facts)
    if phase == "Failed":
        return _failed(facts, status)
    if phase == "Running":
        return _running(facts, status)
    return _pending(facts, status)


def _without_pod(facts: Facts) -> tuple[list[str], str]:
    if facts.attempt is None:
        return [f"There is no Pod {facts.namespace}/{facts.name}."], "hpk ps -A lists the Pods"
    said = f"The API server shows no Pod {facts.namespace}/{facts.name}, but one was submitted."
    if facts.api_problem:
        said = f"Pod {facts.namespace}/{facts.name} was submitted."
    if facts.job is not None and facts.job.state == "PENDING":
        meaning, then = queue_reason(facts.job.reason or "None")
        return [said, *_job_sentences(facts), f"In the queue: {meaning}."], then
    return [said, *_job_sentences(facts)], ""


def _deleting(facts: Facts) -> tuple[list[str], str]:
    said = [f"{_subject(facts)} is being deleted; its containers get their grace period."]
    return [*said, *_job_sentences(facts)], "wait; kubectl get events shows what it waits for"


def _failed(facts: Facts, status: Json) -> tuple[list[str], str]:
    reason, message = status.get("reason"), status.get("message")
    sentences = [f"{_subject(facts)} failed{f' ({reason})' if reason else ''}."]
    if message:
        sentences.append(_sentence(message))
    ended, then = _ended_container(status)
    if ended and not message:
        sentences.append(ended)
    sentences += _job_sentences(facts)
    if reason in _ENDINGS:
        return sentences, _ENDINGS[reason]
    if reason and facts.attempt is None:
        _, _, remedy = str(message or "").rpartition(": ")
        again = f"kubectl delete pod -n {facts.namespace} {facts.name}, and create it anew"
        return sentences, f"{remedy}; then {again}" if remedy else again
    return sentences, then or _logs(facts)


def _container_statuses(status: Json) -> list[Json]:
    """Of all containers, in the order they start."""
    fields = ("initContainerStatuses", "containerStatuses")
    return [item for field in fields for item in status.get(field) or ()]


def _running(facts: Facts, status: Json) -> tuple[list[str], str]:
    sentences = [f"{_subject(facts)} runs."]
    for container in _container_statuses(status):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            last = (container.get("lastState") or {}).get("terminated") or {}
            sentences = [
                f"{_subject(facts)} has its node, but container {container['name']} waits:"
                f" {waiting.get('reason')}."
            ]
            if last:
                sentences.append(
                    f"It ended with exit code {last.get('exitCode')} and was started"
                    f" {container.get('restartCount', 0)} times again."
                )
            then = f"{_logs(facts)} --previous"
            return [*sentences, *_job_sentences(facts)], then
    return [*sentences, *_job_sentences(facts)], _logs(facts)


def _pending(facts: Facts, status: Json) -> tuple[list[str], str]:
    subject = _subject(facts)
    if not (facts.pod or {}).get("spec", {}).get("nodeName"):
        return _unscheduled(facts, status)
    if facts.job is not None and facts.job.state == "PENDING":
        meaning, then = queue_reason(facts.job.reason or "None")
        sentences = [f"{subject} waits in Slurm's queue: {meaning}."]
        return [*sentences, *_job_sentences(facts)], then
    if facts.job is not None and facts.job.state in ("RUNNING", "CONFIGURING"):
        return [
            f"{subject} has its node; its containers are being started.",
            *_job_sentences(facts),
        ], "if this lasts, read the supervisor's log: {log}"
    waiting: Json = {}
    for container in _container_statuses(status):
        found = (container.get("state") or {}).get("waiting") or {}
        if not waiting or found.get("reason") not in (None, "PodInitializing"):
            waiting = found
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    is_pulling = any(event.get("reason") == "Pulling" for event in facts.events)
    if facts.attempt is None and reason in _STARTING and is_pulling:
        said = f"{subject} waits for its images, which are being fetched and converted."
        return [said, *_job_sentences(facts)], "nothing: each image is converted once and then kept"
    sentences = [f"{subject} does not run yet{f': {reason}' if reason else ''}."]
    if message:
        sentences.append(_sentence(message))
    elif facts.refusal:
        sentences.append(f"sbatch said: {_sentence(facts.refusal)}")
    warning = next((e for e in reversed(facts.events) if e.get("type") == "Warning"), None)
    if warning is not None and not message:
        sentences.append(f"The last warning: {_sentence(str(warning.get('message') or ''))}")
    if reason in _PULLS:
        return sentences, _PULLS[reason]
    if "Image" in reason:
        return sentences, "check the image's name and that this host reaches its registry"
    if reason == "SlurmSubmitLimit":
        return sentences, "nothing: it is submitted again by itself once others of yours have ended"
    if reason.startswith("Slurm"):
        return sentences, "nothing: it is tried again by itself; hpk status shows how Slurm is"
    return sentences, f"kubectl describe pod -n {facts.namespace} {facts.name}"


def _unscheduled(facts: Facts, status: Json) -> tuple[list[str], str]:
    condition = next(
        (c for c in status.get("conditions") or () if c.get("type") == "PodScheduled"), None
    )
    sentences = [f"{_subject(facts)} has no virtual node yet, so nothing was submitted to Slurm."]
    if condition is not None and condition.get("message"):
        sentences.append(f"The scheduler says: {_sentence(condition['message'])}")
        return sentences, "kubectl get nodes --show-labels; compare with the Pod's nodeSelector"
    return sentences, "hpk status shows whether the scheduler and the nodes are ready"


def _ended_container(status: Json) -> tuple[str, str]:
    for container in _container_statuses(status):
        ended = (container.get("state") or {}).get("terminated") or {}
        code = ended.get("exitCode")
        if not code:
            continue
        if ended.get("reason") == "OOMKilled":
            return f"Container {container['name']} ran out of memory.", _ENDINGS["OOMKilled"]
        meaning = _EXIT_CODES.get(code)
        text = f"Container {container['name']} ended with exit code {code}"
        return f"{text}: {meaning}." if meaning else f"{text}, its own.", ""
    return "", ""


def _job_sentences(facts: Facts) -> list[str]:
    attempt, job = facts.attempt, facts.job
    if attempt is None:
        return [] if facts.pod is None else ["Nothing is submitted to Slurm for it."]
    if attempt.job_id is None:
        return ["It was submitted, but Slurm's job id is not known yet."]
    if job is None:
        return [f"Slurm does not know its job {attempt.job_id} (any more)."]
    where = f" on {job.nodes}" if job.nodes else ""
    reason = f" ({job.reason})" if job.reason else ""
    sentences = [f"Slurm job {job.job_id} is {job.state}{reason}{where}"]
    if job.state == "PENDING" and job.start_time_s is not None:
        sentences[0] += f", expected to start {_moment(job.start_time_s)}"
    if job.elapsed_s:
        sentences[0] += f", {_span(job.elapsed_s)} so far"
    if job.time_left_s is not None and job.state == "RUNNING":
        sentences[0] += f", {_span(job.time_left_s)} left"
    sentences[0] += "."
    return sentences


def _subject(facts: Facts) -> str:
    return f"Pod {facts.namespace}/{facts.name}"


def _logs(facts: Facts) -> str:
    return f"kubectl logs -n {facts.namespace} {facts.name}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _moment(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def _span(span_s: int) -> str:
    if span_s < 120:
        return f"{span_s} s"
    minutes = span_s // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
