"""A container's lifecycle hooks. Pure. Source: kubernetes pkg/kubelet/lifecycle."""

from __future__ import annotations

from hpk.model.errors import AdmissionError
from hpk.model.handlers import Handler, Lifecycle
from hpk.planning.base.containers import PodContainer
from hpk.planning.base.fields import INVALID, UNSUPPORTED, get_object
from hpk.planning.base.whitelist import anything, one_object
from hpk.planning.containers.handlers import EXEC, HTTP_GET, plan_handler

# tcpSocket is what upstream lets through and then fails at: it is refused.
_HANDLER = one_object(
    {"exec": EXEC, "httpGet": HTTP_GET, "sleep": one_object({"seconds": anything})}
)
LIFECYCLE = one_object({"postStart": _HANDLER, "preStop": _HANDLER})


def plan_lifecycle(container: PodContainer) -> Lifecycle:
    """What is done when the container has started and before it is ended.

    :raises AdmissionError: a hook that nobody could run.
    """
    return Lifecycle(
        post_start=_plan_hook(container, "postStart"), pre_stop=_plan_hook(container, "preStop")
    )


def _plan_hook(container: PodContainer, name: str) -> Handler | None:
    path = f"{container.path}.lifecycle"
    hook = get_object(get_object(container.spec, "lifecycle", container.path), name, path)
    if not hook:
        return None
    if container.is_init and not container.is_sidecar:
        # The API server lets none through.
        raise AdmissionError(UNSUPPORTED, path, "of init containers only a sidecar has one")
    handler = plan_handler(container, hook, f"{path}.{name}")
    if handler is None:
        raise AdmissionError(INVALID, f"{path}.{name}", "says nothing of what to do")
    return handler
