"""The images of one pod, on their way: fetched in the background, with upstream's back-off.

Source: pkg/kubelet/images/image_manager.go (events, reasons, back-off of 10 s doubling to 5 min).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from hpk.images.errors import (
    ERR_IMAGE_NEVER_PULL,
    ERR_IMAGE_PULL,
    INVALID_IMAGE_NAME,
    ImageError,
)
from hpk.model.errors import HpkError
from hpk.model.plan import ImagePlan
from kubelet.api.apiserver import Json
from kubelet.back_off import doubled_s
from kubelet.status.container_statuses import Waiting
from kubelet.status.events import EventRecorder

_RETRY_FIRST_S = 10.0
_RETRY_MOST_S = 300.0
_AT_ONCE_S = 0.5
_FAILURE_SHOWN_S = 5.0
"""How long a failed pull reads as such, before it reads as waiting for the next one."""

_FAILURES = {
    ERR_IMAGE_PULL: ("Failed", 'Failed to pull image "{image}": {}'),
    ERR_IMAGE_NEVER_PULL: (ERR_IMAGE_NEVER_PULL, "{}"),
    INVALID_IMAGE_NAME: ("InspectFailed", "{}"),
}
"""Reason and message of the Event, by the reason that the container waits for."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class ImageProvider(Protocol):
    """What a pod needs of hpk.images."""

    async def ensure(
        self, reference: str, *, pull_policy: str, tell: Callable[[str], None]
    ) -> ImagePlan:
        """The image, converted; ``tell`` hears what is being done. Raises ImageError."""


class PodImages:
    """Fetches what is missing, one try at a time; `ready` is called after each."""

    def __init__(
        self,
        *,
        provider: ImageProvider,
        events: EventRecorder,
        spawn: Spawn,
        ready: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._events = events
        self._spawn = spawn
        self._ready = ready
        self._task: asyncio.Task[None] | None = None
        self._images: dict[str, ImagePlan] = {}
        self._failure: ImageError | None = None
        self._failures = 0
        self._failed_at_s = 0.0
        self._again_at_s = 0.0
        self.waiting = Waiting()

    @property
    def again_s(self) -> float | None:
        """When something is to be done; None while a try runs, for its end is told."""
        if self._task is not None:
            return None
        now_s = time.monotonic()
        shown_until_s = self._failed_at_s + _FAILURE_SHOWN_S
        return max(0.0, (shown_until_s if now_s < shown_until_s else self._again_at_s) - now_s)

    async def get(self, pod: Json) -> Mapping[str, ImagePlan] | None:
        """The pod's images by container name; None while one is missing."""
        wanted = {c["name"] for c in spec_containers(pod)}
        if wanted <= self._images.keys():
            return self._images
        if self._task is None and time.monotonic() >= self._again_at_s:
            self._task = self._spawn(self._fetch(pod))
            # A cached image takes no time worth a round of its own.
            await asyncio.wait([self._task], timeout=_AT_ONCE_S)
        if self._task is None and time.monotonic() >= self._failed_at_s + _FAILURE_SHOWN_S:
            self._back_off(pod)
        return self._images if wanted <= self._images.keys() else None

    def cancel(self) -> None:
        """The pod needs none any more; what no other pod waits for either is ended."""
        if self._task is not None:
            self._task.cancel()

    def _tell(self, text: str) -> None:
        self.waiting = Waiting(message=text)
        self._ready()

    async def _fetch(self, pod: Json) -> None:
        container: Json = {}
        try:
            for container in spec_containers(pod):
                if container["name"] not in self._images:
                    self._images[container["name"]] = await self._fetch_one(pod, container)
            self.waiting = Waiting()
        except ImageError as error:
            self._failed(pod, container, error)
        except (HpkError, OSError) as error:
            self._failed(pod, container, ImageError(ERR_IMAGE_PULL, str(error)))
        finally:
            self._task = None
            self._ready()

    async def _fetch_one(self, pod: Json, container: Json) -> ImagePlan:
        reference, name = container["image"], container["name"]
        began_s = time.monotonic()
        is_pulling = False

        def begin_to_pull() -> None:
            nonlocal is_pulling
            if not is_pulling:
                is_pulling = True
                message = f'Pulling image "{reference}"'
                self._events.normal(pod, "Pulling", message, container=name)

        def tell(text: str) -> None:
            begin_to_pull()
            self._tell(f'image "{reference}": {text}')

        pull_policy = container.get("imagePullPolicy", "IfNotPresent")
        try:
            image = await self._provider.ensure(reference, pull_policy=pull_policy, tell=tell)
        except ImageError as error:
            if error.reason == ERR_IMAGE_PULL:
                begin_to_pull()
            raise
        message = f'Container image "{reference}" already present on machine'
        if is_pulling:
            took = f"{time.monotonic() - began_s:.3f}s"
            message = (
                f'Successfully pulled image "{reference}" in {took} ({took} including waiting)'
            )
        self._events.normal(pod, "Pulled", message, container=name, is_minor=not is_pulling)
        return image

    def _failed(self, pod: Json, container: Json, error: ImageError) -> None:
        pause_s = doubled_s(self._failures, first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
        self._failures += 1
        self._failure, self._failed_at_s = error, time.monotonic()
        self._again_at_s = self._failed_at_s + pause_s
        reason, message = _FAILURES.get(error.reason, ("Failed", "{}"))
        message = message.format(error, image=container["image"])
        self._events.warning(pod, reason, message, container=container["name"])
        message = f"Error: {error.reason}"
        self._events.warning(pod, "Failed", message, container=container["name"])
        self.waiting = Waiting(reason=error.reason, message=str(error))

    def _back_off(self, pod: Json) -> None:
        """Between two tries, in the words of upstream's image manager."""
        error = self._failure
        if error is None or error.reason != ERR_IMAGE_PULL:
            return
        if self.waiting.reason != "ImagePullBackOff":
            names = _names(pod)
            self._events.normal(pod, "BackOff", f"Back-off pulling image {names}")
            message = f"Back-off pulling image {names}: {error.reason}: {error}"
            self.waiting = Waiting(reason="ImagePullBackOff", message=message)


def _names(pod: Json) -> str:
    return ", ".join(
        f'"{image}"' for image in dict.fromkeys(c["image"] for c in spec_containers(pod))
    )


def spec_containers(pod: Json) -> list[Json]:
    """All containers of a Pod, in the order they start."""
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
