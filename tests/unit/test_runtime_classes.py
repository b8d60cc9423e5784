"""RuntimeClass: the runtime that its handler names, against an API server over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hpk.model.errors import AdmissionError, TransientError
from kubelet.api.apiserver import ApiServer
from kubelet.pods.runtime_classes import NO_SANDBOX, RuntimeClasses
from tests.planning import MAIN, SITE, a_pod, plan

_CLASSES = {"good": "podman", "strange": "kata"}


async def _answer(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name == "broken":
        return web.json_response({"reason": "InternalError", "message": "etcd"}, status=500)
    if name not in _CLASSES:
        return web.json_response({"reason": "NotFound", "message": name}, status=404)
    return web.json_response({"metadata": {"name": name}, "handler": _CLASSES[name]})


@pytest.fixture
async def classes(tmp_path: Path) -> AsyncIterator[RuntimeClasses]:
    app = web.Application()
    app.router.add_get("/apis/node.k8s.io/v1/runtimeclasses/{name}", _answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "c",
                "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"},
            }
        ],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    api = await ApiServer.connect(kubeconfig)
    yield RuntimeClasses(api)
    await api.close()
    await runner.cleanup()


def _pod(name: str, **spec: Any) -> dict[str, Any]:
    return a_pod(spec={"runtimeClassName": name, **spec})


async def test_the_handler_is_the_runtime_that_the_pod_has(classes: RuntimeClasses) -> None:
    assert await classes.site_of(a_pod(), SITE) is SITE
    site = await classes.site_of(_pod("good"), SITE)
    assert plan(_pod("good"), site=site).runtime == "podman"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", 'runtimeclass.node.k8s.io "none" not found'),
        ("strange", 'no runtime for "kata" is configured'),
    ],
)
async def test_a_class_that_stands_for_nothing_here(
    classes: RuntimeClasses, name: str, message: str
) -> None:
    with pytest.raises(AdmissionError, match=message) as caught:
        await classes.site_of(_pod(name), SITE)
    assert caught.value.reason == NO_SANDBOX


async def test_an_api_server_that_does_not_say_is_asked_again(classes: RuntimeClasses) -> None:
    with pytest.raises(TransientError):
        await classes.site_of(_pod("broken"), SITE)


def test_the_overhead_counts_once() -> None:
    bare = {option.name: option.value for option in plan(a_pod(), partition=MAIN).options}
    pod = _pod("good", overhead={"cpu": "2", "memory": "100Mi"})
    options = {option.name: option.value for option in plan(pod, partition=MAIN).options}
    assert options != bare
