"""How a Pod's containers and volumes read in an explanation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpk.model.plan import ContainerPlan
from hpk.report.explanation import Container
from hpk.report.stand_ins import asked


def explain_container(
    plan: ContainerPlan, pod: Mapping[str, Any], spec: Mapping[str, Any], *, known: bool
) -> Container:
    """What would run.

    :param pod: the Pod's ``spec``.
    :param spec: the container's part of it.
    :param known: whether its image was looked up, and is none of our stand-ins.
    """
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


def _user_of_unknown(plan: ContainerPlan, pod: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    """What the Pod says of the user itself, and for the rest that the image has a say."""
    if asked(pod, spec, "runAsUser") is None:
        return f"<USER of {plan.image.reference}>"
    if asked(pod, spec, "runAsGroup") is None:
        return f"{plan.uid}:<group in {plan.image.reference}>"
    return f"{plan.uid}:{plan.gid}"


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


def explain_volume(volume: Mapping[str, Any]) -> str:
    """A volume by its name and sources: `tls: secret web-tls`."""
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
