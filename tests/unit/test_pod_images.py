"""A pod's images on their way, as its Events tell of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpk.images.errors import (
    ERR_IMAGE_NEVER_PULL,
    ERR_IMAGE_PULL,
    INVALID_IMAGE_NAME,
    ImageError,
)
from hpk.model.plan import ImageConfig, ImagePlan
from kubelet.pods.pod_images import PodImages
from kubelet.status.events import EventRecorder
from tests.pod_api import serve_pods

IMAGE = ImagePlan(
    reference="app", image_id="app@sha256:0", path="", config=ImageConfig(), passwd="", group=""
)


class Provider:
    """Images that are here, are to be pulled, or cannot be had."""

    def __init__(self, *, is_here: bool = True, reason: str = "") -> None:
        self._is_here = is_here
        self._reason = reason

    async def ensure(
        self, reference: str, *, pull_policy: str, tell: Callable[[str], None]
    ) -> ImagePlan:
        if self._reason:
            raise ImageError(self._reason, "why")
        if not self._is_here:
            tell("downloading")
            tell("converting")
        return IMAGE


async def told(tmp_path: Path, provider: Provider) -> dict[str, list[str]]:
    """Messages of the Events of a Pod of two containers, by their reasons."""
    async with serve_pods(tmp_path) as (pods, api):
        pod = pods.add("web", {})
        pod["spec"]["containers"] = [{"name": name, "image": "app"} for name in ("main", "other")]
        recorder = EventRecorder(api)
        images = PodImages(
            provider=provider, events=recorder, spawn=asyncio.ensure_future, ready=lambda: None
        )
        await images.get(pod)
        recorder.normal(pod, "Marker", "the last", is_minor=True)
        writing = asyncio.ensure_future(recorder.run())
        async with asyncio.timeout(60):
            while "Marker" not in {event["reason"] for event in pods.events.values()}:
                await asyncio.sleep(0.01)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        found: dict[str, list[str]] = {}
        events: list[dict[str, Any]] = list(pods.events.values())
        for event in events:
            found.setdefault(event["reason"], []).append(event["message"])
        found.pop("Marker")
        return found


async def test_what_is_here_is_not_pulled(tmp_path: Path) -> None:
    message = 'Container image "app" already present on machine'
    assert await told(tmp_path, Provider()) == {"Pulled": [message, message]}


async def test_what_is_not_here_is_pulled(tmp_path: Path) -> None:
    found = await told(tmp_path, Provider(is_here=False))
    assert found.keys() == {"Pulling", "Pulled"}
    assert found["Pulling"] == ['Pulling image "app"'] * 2
    assert all(text.startswith('Successfully pulled image "app" in ') for text in found["Pulled"])


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            ERR_IMAGE_PULL,
            {
                "Pulling": ['Pulling image "app"'],
                "Failed": ['Failed to pull image "app": why', "Error: ErrImagePull"],
            },
        ),
        (
            ERR_IMAGE_NEVER_PULL,
            {"ErrImageNeverPull": ["why"], "Failed": ["Error: ErrImageNeverPull"]},
        ),
        (INVALID_IMAGE_NAME, {"InspectFailed": ["why"], "Failed": ["Error: InvalidImageName"]}),
    ],
)
async def test_what_cannot_be_had(
    tmp_path: Path, reason: str, expected: dict[str, list[str]]
) -> None:
    found = await told(tmp_path, Provider(reason=reason))
    assert {reason: sorted(texts) for reason, texts in found.items()} == {
        reason: sorted(texts) for reason, texts in expected.items()
    }
