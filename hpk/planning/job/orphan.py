"""How long a Pod goes on when its control plane gives no sign of life. Pure.

A Pod that ends by itself does no harm by going on: it is the work somebody waits for. One that
never ends (a Deployment's) would hold its node up to Slurm's limit, and not every site has one.
"""

from __future__ import annotations

from collections.abc import Mapping

from hpk.model.errors import AdmissionError
from hpk.planning.base.fields import JsonObject, get_object
from hpk.planning.job.annotations import Annotation
from hpk.planning.job.flags import INVALID_ANNOTATION

NEVER = "never"
_MOST_DIGITS = 9


def plan_orphan_timeout(pod: JsonObject, annotations: Mapping[str, Annotation]) -> int | None:
    """Seconds, 0 for ever, None as the site has it.

    :raises AdmissionError: the annotation is neither a number of seconds nor ``never``.
    """
    annotation = annotations.get("orphan-timeout")
    if annotation is None:
        ends = get_object(pod, "spec", "").get("restartPolicy") in ("Never", "OnFailure")
        return 0 if ends else None
    value = annotation.value.strip()
    if value == NEVER:
        return 0
    if not (value.isascii() and value.isdigit()) or len(value) > _MOST_DIGITS or int(value) == 0:
        raise AdmissionError(
            INVALID_ANNOTATION,
            annotation.field,
            f"{annotation.value!r} must be a number of seconds from 1, or {NEVER!r}",
        )
    return int(value)
