"""What a Pod may read of itself: fieldRef and resourceFieldRef.

A field whose value is known at admission and cannot change becomes that value; the others are
resolved by the kubelet when the job runs, with `metadata_field`. Sources:
k8s.io/kubernetes, pkg/fieldpath and pkg/api/v1/resource.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from hpk.model.errors import AdmissionError, ParseError
from hpk.model.resources import ContainerResources
from hpk.planning.base.fields import INVALID, UNSUPPORTED, JsonObject, get_object, get_text
from hpk.planning.base.quantity import parse_quantity, round_up

HOST_FIELDS = ("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
"""All the address of the pod's first node: pods are on their node's network."""
_METADATA = ("metadata.name", "metadata.namespace", "metadata.uid")
_SPEC = ("spec.nodeName", "spec.serviceAccountName")
_MAPS = ("metadata.labels", "metadata.annotations")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]", re.DOTALL)
_ESCAPES = {7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResources:
    """What the job has on its first node: what a limit counts as where a container has none."""

    cpu_m: int = 1000
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DownwardContext:
    """What fields are read from.

    :param resources: of each container, by name.
    """

    pod: JsonObject
    resources: Mapping[str, ContainerResources]
    job: JobResources


def field_ref(holder: JsonObject, path: str, *, in_volume: bool) -> str:
    """The ``fieldPath`` of ``holder``'s fieldRef.

    :raises AdmissionError: it is none that a Pod may read there.
    """
    reference = get_object(holder, "fieldRef", path)
    ref_path = f"{path}.fieldRef"
    if get_text(reference, "apiVersion", ref_path) not in ("", "v1"):
        raise AdmissionError(UNSUPPORTED, f"{ref_path}.apiVersion", "only 'v1' is supported")
    field_path = get_text(reference, "fieldPath", ref_path)
    known = _METADATA + (_MAPS if in_volume else (*_SPEC, *HOST_FIELDS))
    if field_path not in known and _SUBSCRIPT.fullmatch(field_path) is None:
        raise AdmissionError(
            UNSUPPORTED, f"{ref_path}.fieldPath", f"{field_path!r} is not supported"
        )
    return field_path


def static_field(pod: JsonObject, field_path: str) -> str | None:
    """The field's value, None if it may change or is known only where the job runs."""
    if field_path == "spec.serviceAccountName":
        return get_text(get_object(pod, "spec", ""), "serviceAccountName", "spec") or "default"
    if field_path not in _METADATA + _SPEC:
        return None
    part, _, name = field_path.partition(".")
    return get_text(get_object(pod, part, ""), name, part)


def metadata_field(pod: JsonObject, field_path: str) -> str:
    """Labels and annotations, one or all of them; "" for one that is not there.

    :raises ParseError: it is no field of the metadata.
    """
    found = _SUBSCRIPT.fullmatch(field_path)
    name = found[1] if found else field_path
    if name not in _MAPS:
        raise ParseError(f"unsupported fieldPath: {field_path}")
    values = (pod.get("metadata") or {}).get(name.partition(".")[2]) or {}
    return str(values.get(found[2]) or "") if found else format_map(values)


def format_map(values: Mapping[str, str]) -> str:
    """``key="value"`` lines, sorted, quoted as Go quotes."""
    return "\n".join(f"{key}={go_quote(str(values[key]))}" for key in sorted(values))


def go_quote(text: str) -> str:
    """Go's strconv.Quote."""
    return '"' + "".join(_quoted(char) for char in text) + '"'


def _quoted(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    if code in _ESCAPES:
        return _ESCAPES[code]
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def resource_field(context: DownwardContext, holder: JsonObject, path: str, own: str) -> str:
    """The value of ``holder``'s resourceFieldRef, in units of its divisor, rounded up.

    :param own: the container a variable belongs to; "" in a volume, which must name one.
    """
    reference = get_object(holder, "resourceFieldRef", path)
    ref_path = f"{path}.resourceFieldRef"
    name = get_text(reference, "containerName", ref_path) or own
    if name not in context.resources:
        raise AdmissionError(INVALID, f"{ref_path}.containerName", f"no container {name!r}")
    resource = get_text(reference, "resource", ref_path)
    amounts = context.resources[name]
    cpu_limit_m = amounts.cpu_limit_m or context.job.cpu_m
    memory_limit_bytes = amounts.memory_limit_bytes or context.job.memory_bytes
    known = {
        "limits.cpu": Fraction(cpu_limit_m, 1000),
        "requests.cpu": Fraction(amounts.cpu_request_m or 0, 1000),
        "limits.memory": Fraction(memory_limit_bytes),
        "requests.memory": Fraction(amounts.memory_request_bytes or 0),
    }
    if resource not in known:
        raise AdmissionError(
            UNSUPPORTED, f"{ref_path}.resource", f"{resource!r} is not supported yet"
        )
    return str(round_up(known[resource] / _divisor(reference, ref_path)))


def _divisor(reference: JsonObject, path: str) -> Fraction:
    try:
        return parse_quantity(reference.get("divisor") or "1") or Fraction(1)
    except ParseError as error:
        raise AdmissionError(INVALID, f"{path}.divisor", error.message) from error
