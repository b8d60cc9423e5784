"""The kubelet API's decisions, each by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hpk.model.errors import TransientError
from kubelet.server.authorization import (
    ALLOWED_TTL_S,
    DENIED_TTL_S,
    Authorizer,
    Question,
    question_for,
)
from kubelet.server.backend import AccessRequest, LogNotFoundError, LogUnavailableError
from kubelet.server.container_status import check_log
from kubelet.server.front_door import wants_upgrade
from kubelet.server.peer import Peer

PEER = Peer(user="alice", groups=("devs", "system:authenticated"))


def find_pod(namespace: str, name: str) -> dict[str, Any] | None:
    return {"spec": {"nodeName": "debug"}} if (namespace, name) == ("ns", "web") else None


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/pods/", "get", ("pods", "proxy")),
        ("GET", "/podsecret", "get", ("proxy",)),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/healthz", "get", ("healthz", "proxy")),
        ("GET", "/healthz/syncloop", "get", ("healthz", "proxy")),
        ("GET", "/configz", "get", ("configz", "proxy")),
        ("GET", "/flagz", "get", ("configz",)),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("GET", "/metrics/resource", "get", ("metrics",)),
        ("GET", "/logs/x", "get", ("log",)),
        ("POST", "/checkpoint/ns/web/main", "create", ("checkpoint",)),
        ("GET", "/containerLogs/ns/web/main", "get", ("proxy",)),
        ("POST", "/exec/ns/web/main", "create", ("proxy",)),
        ("PUT", "/x", "update", ("proxy",)),
        ("PATCH", "/x", "patch", ("proxy",)),
        ("DELETE", "/x", "delete", ("proxy",)),
        ("HEAD", "/pods", "", ("pods", "proxy")),
        ("GET", "/Pods", "get", ("proxy",)),
        ("GET", "", "get", ("proxy",)),
    ],
)
def test_what_a_request_needs(
    method: str, path: str, verb: str, subresources: tuple[str, ...]
) -> None:
    question = question_for(method, path, find_pod, ("main", "debug"))
    assert (question.verb, question.subresources) == (verb, subresources)


@pytest.mark.parametrize(
    ("path", "nodes"),
    [
        ("/containerLogs/ns/web/main", ("debug",)),
        ("/exec/ns/web/uid/main", ("debug",)),
        ("/portForward/ns/web", ("debug",)),
        ("/containerLogs/ns/absent/main", ("main", "debug")),
        ("/containerLogs/ns", ("main", "debug")),
        ("/pods/ns/web", ("main", "debug")),
    ],
)
def test_which_nodes_a_request_is_about(path: str, nodes: tuple[str, ...]) -> None:
    assert question_for("GET", path, find_pod, ("main", "debug")).nodes == nodes


def test_without_nodes_the_right_on_all_nodes_is_needed() -> None:
    assert question_for("GET", "/pods", find_pod, ()).nodes == ("",)


class Reviews:
    """An API server that allows what it is told to, and counts."""

    def __init__(self, *allowed: tuple[str, str]) -> None:
        self.allowed = set(allowed)
        self.asked: list[tuple[str, str]] = []
        self.down = False
        self.now_s = 0.0

    async def review(self, request: AccessRequest) -> bool:
        await asyncio.sleep(0)
        self.asked.append((request.subresource, request.name))
        if self.down:
            raise TransientError("no answer")
        return (request.subresource, request.name) in self.allowed

    def authorizer(self) -> Authorizer:
        return Authorizer(self.review, clock=lambda: self.now_s)


def question(*subresources: str, nodes: tuple[str, ...] = ("main",)) -> Question:
    return Question(verb="get", subresources=subresources, nodes=nodes)


async def test_either_right_suffices_but_on_every_node() -> None:
    reviews = Reviews(("pods", "main"), ("proxy", "main"), ("proxy", "debug"))
    authorizer = reviews.authorizer()
    assert await authorizer.allowed(PEER, question("pods", "proxy", nodes=("main", "debug")))
    assert not await authorizer.allowed(PEER, question("pods", nodes=("main", "debug")))
    assert await authorizer.allowed(PEER, question("pods"))


async def test_how_long_answers_are_remembered() -> None:
    reviews = Reviews(("proxy", "main"))
    authorizer = reviews.authorizer()
    for _ in range(3):
        assert await authorizer.allowed(PEER, question("proxy"))
        assert not await authorizer.allowed(PEER, question("log"))
    assert reviews.asked == [("proxy", "main"), ("log", "main")]
    reviews.now_s = DENIED_TTL_S
    reviews.allowed = {("log", "main")}
    assert await authorizer.allowed(PEER, question("log"))
    assert await authorizer.allowed(PEER, question("proxy")), "an allowance holds for longer"
    reviews.now_s = ALLOWED_TTL_S
    assert not await authorizer.allowed(PEER, question("proxy"))


async def test_answers_are_not_shared_between_users_or_groups() -> None:
    reviews = Reviews(("proxy", "main"))
    authorizer = reviews.authorizer()
    await authorizer.allowed(PEER, question("proxy"))
    await authorizer.allowed(Peer(user="bob", groups=PEER.groups), question("proxy"))
    await authorizer.allowed(Peer(user="alice", groups=()), question("proxy"))
    assert len(reviews.asked) == 3


async def test_a_failed_review_is_an_error_and_is_asked_again() -> None:
    reviews = Reviews(("proxy", "main"))
    authorizer = reviews.authorizer()
    reviews.down = True
    with pytest.raises(TransientError):
        await authorizer.allowed(PEER, question("proxy"))
    reviews.down = False
    assert await authorizer.allowed(PEER, question("proxy"))


RAN = {"terminated": {"exitCode": 1, "containerID": "apptainer://1"}}
NEVER_RAN = {"terminated": {"exitCode": 128, "containerID": ""}}


def pod_with(state: dict[str, Any], last: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "init"}]},
        "status": {
            "containerStatuses": [{"name": "main", "state": state, "lastState": last or {}}]
        },
    }


@pytest.mark.parametrize(
    ("state", "last", "previous"),
    [
        ({"running": {}}, None, False),
        (RAN, None, False),
        (NEVER_RAN, RAN, False),
        ({"waiting": {"reason": "CrashLoopBackOff"}}, RAN, False),
        ({"running": {}}, RAN, True),
    ],
)
def test_there_is_a_log(state: dict[str, Any], last: dict[str, Any] | None, previous: bool) -> None:
    check_log(pod_with(state, last), "main", previous=previous)


@pytest.mark.parametrize(
    ("state", "last", "previous", "message"),
    [
        (
            {"waiting": {"reason": "ContainerCreating"}},
            None,
            False,
            'container "main" in pod "web" is waiting to start: ContainerCreating',
        ),
        (
            {"waiting": {"reason": "ErrImagePull"}},
            None,
            False,
            'container "main" in pod "web" is waiting to start: image can\'t be pulled',
        ),
        (
            {"waiting": {"reason": "ImagePullBackOff"}},
            None,
            False,
            'container "main" in pod "web" is waiting to start: trying and failing to pull image',
        ),
        ({}, None, False, 'container "main" in pod "web" is waiting to start - no logs yet'),
        (NEVER_RAN, None, False, 'container "main" in pod "web" is terminated'),
        ({"waiting": {}}, NEVER_RAN, False, 'container "main" in pod "web" is terminated'),
        (
            {"running": {}},
            None,
            True,
            'previous terminated container "main" in pod "web" not found',
        ),
        (RAN, NEVER_RAN, True, 'previous terminated container "main" in pod "web" not found'),
    ],
)
def test_there_is_no_log(
    state: dict[str, Any], last: dict[str, Any] | None, previous: bool, message: str
) -> None:
    with pytest.raises(LogUnavailableError) as error:
        check_log(pod_with(state, last), "main", previous=previous)
    assert str(error.value) == message


def test_containers_that_are_not_there() -> None:
    with pytest.raises(LogNotFoundError, match='container "x" not found in pod "web"'):
        check_log(pod_with({"running": {}}), "x", previous=False)
    with pytest.raises(LogUnavailableError, match='container "init" in pod "web" is not available'):
        check_log(pod_with({"running": {}}), "init", previous=False)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nCONNECTION:keep-alive,\tuPgRaDe \r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: upgrade\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", False),
        (b"GET /?connection:upgrade HTTP/1.1\r\nX-Connection: upgrade\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
    ],
)
def test_upgrades_are_recognized(head: bytes, expected: bool) -> None:
    assert wants_upgrade(head) is expected
