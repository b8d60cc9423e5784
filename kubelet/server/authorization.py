"""May this client do this: the kubelet's mapping of requests to permissions on Nodes.

Source: pkg/kubelet/server/auth.go. One server stands for several Nodes, so a request about a Pod is
about that Pod's Node, and any other request is about all of them: it needs the permission on each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kubelet.server.backend import AccessRequest
from kubelet.server.peer import Peer

ALLOWED_TTL_S = 300.0
DENIED_TTL_S = 30.0
_MAX_CACHED = 4096

_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_FINE_GRAINED = {
    "/allocatedPods": "pods",
    "/pods": "pods",
    "/healthz": "healthz",
    "/configz": "configz",
    "/runningpods": "pods",
}
_COARSE = {
    "/stats": "stats",
    "/metrics": "metrics",
    "/logs": "log",
    "/checkpoint": "checkpoint",
    "/statusz": "statusz",
    "/flagz": "configz",
}
_ABOUT_A_POD = frozenset({"containerLogs", "exec", "attach", "portForward", "run", "checkpoint"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What must be allowed: one of ``subresources`` (tried in order), on every one of ``nodes``."""

    verb: str
    subresources: tuple[str, ...]
    nodes: tuple[str, ...]


def question_for(
    method: str,
    path: str,
    find_pod: Callable[[str, str], dict[str, Any] | None],
    nodes: tuple[str, ...],
) -> Question:
    """The permission a request needs.

    :param path: decoded, without query.
    :param find_pod: the Pod of a namespace and a name.
    """
    subresources = [name for prefix, name in _FINE_GRAINED.items() if _is_under(path, prefix)]
    subresources.append(
        next((name for prefix, name in _COARSE.items() if _is_under(path, prefix)), "proxy")
    )
    about = nodes or ("",)
    segments = path.strip("/").split("/")
    if len(segments) >= 3 and segments[0] in _ABOUT_A_POD:
        pod = find_pod(segments[1], segments[2])
        spec = pod.get("spec") if pod else None
        node = spec.get("nodeName") if isinstance(spec, dict) else None
        if isinstance(node, str) and node:
            about = (node,)
    return Question(verb=_VERBS.get(method, ""), subresources=tuple(subresources), nodes=about)


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def describe(peer: Peer, question: Question) -> str:
    """Who wanted what, in upstream's words."""
    subresources = " ".join(question.subresources)
    return (
        f"user={peer.user}, verb={question.verb}, resource=nodes, subresource(s)=[{subresources}]"
    )


class Authorizer:
    """Answers questions through the API server and remembers the answers for a while."""

    def __init__(
        self,
        review: Callable[[AccessRequest], Awaitable[bool]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._review = review
        self._clock = clock
        self._cache: dict[AccessRequest, tuple[bool, float]] = {}

    async def allowed(self, peer: Peer, question: Question) -> bool:
        """Whether the peer may.

        :raises HpkError: the API server could not be asked.
        """
        for subresource in question.subresources:
            requests = [
                AccessRequest(
                    user=peer.user,
                    groups=peer.groups,
                    verb=question.verb,
                    subresource=subresource,
                    name=node,
                )
                for node in question.nodes
            ]
            if all(await asyncio.gather(*(self._ask(request) for request in requests))):
                return True
        return False

    async def _ask(self, request: AccessRequest) -> bool:
        cached = self._cache.get(request)
        if cached is not None and self._clock() < cached[1]:
            return cached[0]
        answer = await self._review(request)
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        ttl_s = ALLOWED_TTL_S if answer else DENIED_TTL_S
        self._cache[request] = (answer, self._clock() + ttl_s)
        return answer
