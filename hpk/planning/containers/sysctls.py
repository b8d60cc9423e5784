"""``securityContext.sysctls``: kernel parameters of the pod's own namespaces.

The pod has an IPC namespace; the network is its node's. Of that namespace upstream calls one
parameter safe, and an administrator would have to allow the others. Source:
pkg/kubelet/sysctl (safe_sysctls.go, allowlist.go).
"""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.planning.base.fields import (
    INVALID,
    UNSUPPORTED,
    JsonObject,
    get_object,
    get_objects,
    get_text,
)

SAFE = ("kernel.shm_rmid_forced",)
FORBIDDEN = "SysctlForbidden"


def plan_sysctls(pod: JsonObject) -> tuple[tuple[str, str], ...]:
    """Each parameter, with dots in its name, and its value.

    :raises AdmissionError: the pod has no such parameter of its own, or may not set it.
    """
    path = "spec.securityContext"
    context = get_object(get_object(pod, "spec", ""), "securityContext", "spec")
    found = []
    for where, item in get_objects(context, "sysctls", path):
        name, value = _dotted(get_text(item, "name", where)), get_text(item, "value", where)
        if name.startswith("net."):
            raise AdmissionError(
                UNSUPPORTED, f"{where}.name", f"{name!r} is of the network, which is the node's"
            )
        if name not in SAFE:
            raise AdmissionError(
                FORBIDDEN, f"{where}.name", f'forbidden sysctl: "{name}" not allowlisted'
            )
        if "\n" in value:
            raise AdmissionError(INVALID, f"{where}.value", "must be one line")
        found.append((name, value))
    return tuple(found)


def _dotted(name: str) -> str:
    """Upstream takes names with slashes, too; whichever comes first separates."""
    slash, dot = name.find("/"), name.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return name.translate(str.maketrans("/.", "./"))
    return name
