"""An Argo Workflow's templates to the Pods Argo would make of them. Pure.

Parameters are filled in where the Workflow itself says what they are: the caller's arguments (the
first of ``withItems``), the template's defaults, the Workflow's arguments, or what the user gives.
Argo's own containers (init, wait) and its prefix before the command are left out, and a note says
so: they decide nothing about the job.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

WORKFLOWS = {
    "Workflow": ("spec",),
    "WorkflowTemplate": ("spec",),
    "ClusterWorkflowTemplate": ("spec",),
    "CronWorkflow": ("spec", "workflowSpec"),
}
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z0-9_.-]+)\s*\}\}")
_OF_SPEC = (
    *("affinity", "automountServiceAccountToken", "dnsPolicy", "hostNetwork", "nodeSelector"),
    *("schedulerName", "securityContext", "serviceAccountName", "tolerations"),
)
_OF_TEMPLATE = (
    *("activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "nodeSelector"),
    *("schedulerName", "securityContext", "serviceAccountName", "tolerations"),
)
_ABOUT_ARGO = (
    "Argo adds its own init and wait containers, and runs the command through"
    " /var/run/argo/argoexec emissary"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplatePod:
    """The Pod of one template."""

    template: str
    pod: Json
    notes: tuple[str, ...]


def workflow_pods(document: Json, parameters: Mapping[str, str]) -> Iterator[TemplatePod]:
    """One Pod for each template that runs containers.

    :param parameters: values by name, before all others.
    """
    spec: Json = document
    for key in WORKFLOWS[document["kind"]]:
        spec = _dict(spec.get(key))
    templates = [one for one in _list(spec.get("templates")) if isinstance(one, dict)]
    metadata = _dict(document.get("metadata"))
    base = {"workflow.name": str(metadata.get("name") or metadata.get("generateName") or "")}
    base["workflow.namespace"] = str(metadata.get("namespace") or "default")
    for name, value in _parameters(_dict(spec.get("arguments"))).items():
        base[f"workflow.parameters.{name}"] = parameters.get(name, value)
    for template in templates:
        containers = _containers(template)
        if not containers:
            continue
        name = str(template.get("name") or "unnamed")
        known, notes = _inputs(name, template, templates, base, parameters)
        pod = _fill(_pod(spec, template, containers), known)
        unknown = sorted(set(_VARIABLE.findall(json.dumps(pod, default=str))))
        if unknown:
            notes.append(f"unknown here: {', '.join(unknown)}; give them by -p NAME=VALUE")
        if "podSpecPatch" in template or "podSpecPatch" in spec:
            notes.append("podSpecPatch is not applied")
        yield TemplatePod(template=name, pod=pod, notes=(*notes, _ABOUT_ARGO))


def _containers(template: Json) -> list[Json]:
    if isinstance(template.get("script"), dict):
        script = {k: v for k, v in template["script"].items() if k != "source"}
        return [{**script, "name": "main", "args": ["/argo/staging/script"]}]
    if isinstance(template.get("container"), dict):
        return [{**template["container"], "name": "main"}]
    inside = _list(_dict(template.get("containerSet")).get("containers"))
    return [one for one in inside if isinstance(one, dict)]


def _pod(spec: Json, template: Json, containers: list[Json]) -> Json:
    own, common = _dict(template.get("metadata")), _dict(spec.get("podMetadata"))
    pod_spec: Json = {key: spec[key] for key in _OF_SPEC if key in spec}
    pod_spec |= {key: template[key] for key in _OF_TEMPLATE if key in template}
    pod_spec["restartPolicy"] = "Never"
    pod_spec["containers"] = [*containers, *_list(template.get("sidecars"))]
    if template.get("initContainers"):
        pod_spec["initContainers"] = template["initContainers"]
    volumes = [*_list(spec.get("volumes")), *_list(template.get("volumes"))]
    mounted = {
        mount.get("name")
        for one in pod_spec["containers"]
        for mount in _list(_dict(one).get("volumeMounts"))
        if isinstance(mount, dict)
    }
    if volumes:
        pod_spec["volumes"] = [v for v in volumes if _dict(v).get("name") in mounted]
    annotations = {**_dict(common.get("annotations")), **_dict(own.get("annotations"))}
    return copy.deepcopy({"metadata": {"annotations": annotations}, "spec": pod_spec})


def _inputs(
    name: str,
    template: Json,
    templates: list[Json],
    base: Mapping[str, str],
    given: Mapping[str, str],
) -> tuple[dict[str, str], list[str]]:
    """The variables a template sees, and what to tell about them."""
    known, notes = dict(base), []
    values = {k: _text(v, known) for k, v in _parameters(_dict(template.get("inputs"))).items()}
    caller = next((call for call in _calls(templates) if call.get("template") == name), None)
    if caller is not None:
        items = caller.get("withItems")
        if isinstance(items, list) and items:
            known |= _item(items[0])
            notes.append(f"shown for the first of {len(items)} items: {json.dumps(items[0])}")
        arguments = _parameters(_dict(caller.get("arguments")))
        values |= {key: _text(value, known) for key, value in arguments.items()}
    values |= given
    known |= {f"inputs.parameters.{key}": value for key, value in values.items()}
    return known, notes


def _calls(templates: list[Json]) -> Iterator[Json]:
    for template in templates:
        tasks = _list(_dict(template.get("dag")).get("tasks"))
        for group in _list(template.get("steps")):
            tasks = [*tasks, *(group if isinstance(group, list) else [group])]
        yield from (task for task in tasks if isinstance(task, dict))


def _item(item: Any) -> dict[str, str]:
    if isinstance(item, dict):
        return {f"item.{key}": _plain(value) for key, value in item.items()}
    return {"item": _plain(item)}


def _parameters(holder: Json) -> dict[str, str]:
    found = {}
    for one in _list(holder.get("parameters")):
        value = one.get("value", one.get("default")) if isinstance(one, dict) else None
        if value is not None:
            found[str(one.get("name"))] = _plain(value)
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fill(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _text(value, known)
    if isinstance(value, dict):
        return {key: _fill(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, known) for item in value]
    return value


def _text(text: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: known.get(found[1], found[0]), text)


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
