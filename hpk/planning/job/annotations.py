"""The annotations HPK reads, under its own prefix and those of its predecessors."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from hpk.model.errors import AdmissionError
from hpk.planning.base.fields import JsonObject, check_text, get_object
from hpk.planning.job.flags import INVALID_ANNOTATION

PREFIXES = ("slurm-job.hpk.io/", "slurm.hpk.io/", "slurm-job.knoc.io/", "slurm-job.vk.io/")
NO_SUCH_NAME = "no annotation of this name"
NAMES = {
    "flags": "flags",
    "mpi-flags": "mpi-flags",
    "mpi-flag": "mpi-flags",
    "runtime": "runtime",
    "mpi": "mpi",
    "orphan-timeout": "orphan-timeout",
}


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation: its value and the field path messages name."""

    value: str
    field: str


def read_annotations(pod: JsonObject) -> dict[str, Annotation]:
    """HPK's annotations of a Pod, by canonical name (the values of NAMES).

    :raises AdmissionError: an unknown name under one of our prefixes, two spellings of one
        annotation with different values, or a NUL in any annotation.
    """
    metadata = get_object(pod, "metadata", "")
    found: dict[str, Annotation] = {}
    annotations = get_object(metadata, "annotations", "metadata")
    for key in sorted(annotations, key=_rank):
        field = f"metadata.annotations[{key}]"
        value = check_text(annotations[key], field)
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), None)
        if prefix is None:
            continue
        name = _canonical_name(key.removeprefix(prefix), field)
        first = found.setdefault(name, Annotation(value, field))
        if first.value != value:
            raise AdmissionError(
                INVALID_ANNOTATION,
                field,
                f"contradicts {first.field}, which means the same",
                remedy="keep one of them",
            )
    return found


def _rank(key: str) -> tuple[int, str]:
    for rank, prefix in enumerate(PREFIXES):
        if key.startswith(prefix):
            return rank, key
    return len(PREFIXES), key


def _canonical_name(name: str, field: str) -> str:
    if name in NAMES:
        return NAMES[name]
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    known = ", ".join(NAMES)
    remedy = f"did you mean {near[0]}?" if near else f"the names are {known}"
    raise AdmissionError(INVALID_ANNOTATION, field, f"{NO_SUCH_NAME}: {name!r}", remedy=remedy)
