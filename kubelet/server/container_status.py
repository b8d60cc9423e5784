"""Whether a container has a log, decided from its Pod's status, in upstream's words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubelet.server.backend import LogNotFoundError, LogUnavailableError

_SPECS = ("containers", "initContainers", "ephemeralContainers")
_STATUSES = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_PULL_MESSAGES = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def check_log(pod: dict[str, Any], container: str, *, previous: bool) -> None:
    """Returns if the container has run (or, for ``previous``, has run before its last start).

    Source: pkg/kubelet/kubelet_pods.go, validateContainerLogStatus.

    :raises LogNotFoundError: the Pod has no such container.
    :raises LogUnavailableError: it has, but there is no log to show.
    """
    name = pod["metadata"]["name"]
    where = f'container "{container}" in pod "{name}"'
    if not any(item.get("name") == container for item in _items(pod.get("spec"), _SPECS)):
        raise LogNotFoundError(f'container "{container}" not found in pod "{name}"')
    for status in _items(pod.get("status"), _STATUSES):
        if status.get("name") == container:
            break
    else:
        raise LogUnavailableError(f"{where} is not available")
    state = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    if previous:
        if not (last and last.get("containerID")):
            raise LogUnavailableError(f"previous terminated {where} not found")
        return
    if state.get("running") is not None:
        return
    ended = state.get("terminated") or last
    if ended is not None:
        if not (ended.get("containerID") or (last and last.get("containerID"))):
            raise LogUnavailableError(f"{where} is terminated")
        return
    waiting = state.get("waiting")
    if waiting is None:
        raise LogUnavailableError(f"{where} is waiting to start - no logs yet")
    reason = waiting.get("reason", "")
    raise LogUnavailableError(f"{where} is waiting to start: {_PULL_MESSAGES.get(reason, reason)}")


def _items(part: dict[str, Any] | None, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for key in keys:
        yield from (part or {}).get(key) or ()
