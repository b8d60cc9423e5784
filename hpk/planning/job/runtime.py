"""The annotation ``runtime``: which container runtime runs the Pod."""

from __future__ import annotations

from collections.abc import Mapping

from hpk.model.errors import AdmissionError
from hpk.planning.job.annotations import Annotation
from hpk.planning.job.flags import INVALID_ANNOTATION
from hpk.planning.job.site import SiteSettings


def plan_runtime(annotations: Mapping[str, Annotation], site: SiteSettings) -> str:
    """The runtime's name: the annotation's, else the site's default."""
    annotation = annotations.get("runtime")
    if annotation is None:
        return site.default_runtime
    name = annotation.value.strip()
    if name not in site.runtimes:
        known = ", ".join(site.runtimes)
        raise AdmissionError(
            INVALID_ANNOTATION,
            annotation.field,
            f"no container runtime {name!r} here",
            remedy=f"the runtimes are {known}",
        )
    return name
