"""What the kubelet API asks of the kubelet behind it.

The server knows paths, authorization and log formats; whoever implements KubeletBackend knows the
Pods, the channel to their supervisors and the API server. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hpk.model.errors import HpkError


class LogNotFoundError(HpkError):
    """There is no such Pod or container. Answered with 404 and the message."""


class ContainerNotFoundError(HpkError):
    """The Pod has no such container that runs. In upstream's words."""

    def __init__(self, container: str) -> None:
        super().__init__(f'container not found ("{container}")')


class LogUnavailableError(HpkError):
    """The container exists but has no log to give now. Answered with 400 and the message.

    Messages as upstream spells them; `kubelet.server.container_status.log_state` finds the right
    one from a Pod's status.
    """


class LogGoneError(HpkError):
    """The bytes at an offset were rotated away; not an error for the client.

    :param offset: of the first byte that is still there, where reading goes on.
    """

    def __init__(self, offset: int) -> None:
        super().__init__(f"the log begins at byte {offset} now")
        self.offset = offset


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """May this user do this to a Node? Becomes a SubjectAccessReview.

    ``spec.resourceAttributes`` is ``{verb, version: "v1", resource, subresource, name}``.

    :param user: common name of the client's certificate, ``spec.user``; groups are its
        organizations, ``spec.groups``.
    :param verb: ``get``, ``create``, ``update``, ``patch``, ``delete`` or "".
    :param subresource: ``proxy``, ``pods``, ``healthz``, ``configz``, ``log``, ``stats``,
        ``metrics``, ``checkpoint`` or ``statusz``.
    :param name: of the Node; "" asks for all Nodes.
    """

    user: str
    groups: tuple[str, ...]
    verb: str
    subresource: str
    name: str
    resource: str = "nodes"
    version: str = "v1"


class LogSource(Protocol):
    """The raw CRI log of one run of a container, wherever it lies.

    Offsets count from the first byte ever written, through rotations, and mean the same byte for as
    long as the source is used.
    """

    async def read(self, offset: int, *, wait: bool) -> tuple[bytes, bool]:
        """Bytes from ``offset`` on, as many as are convenient, and whether nothing follows them.

        :param offset: in bytes, from the log's start.
        :param wait: return only when there are bytes after ``offset`` or no more can come (the
            container has ended); without it, what is there now, which may be nothing.
        :returns: (data, eof). ``eof`` means: the container has ended and the log ends after data.
        :raises LogGoneError: the byte at ``offset`` was rotated away; names the first that was not.
        :raises LogUnavailableError: the log cannot be read (any more).

        The server cancels the call when its client goes away.
        """

    async def size(self) -> int:
        """The offset after the last byte, in the same count as read's offsets."""


class KubeletBackend(Protocol):
    """The kubelet, as its API server sees it."""

    def pods(self) -> list[dict[str, Any]]:
        """v1.Pod objects with their current status, of all virtual nodes; not to be changed."""

    def find_pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Pod of that name, as pods() has it; None where there is none."""

    def health(self) -> str | None:
        """None if the kubelet works, else what is wrong with it."""

    def metrics(self) -> Mapping[str, float]:
        """Numbers by Prometheus' names; a counter's ends in ``_total``."""

    def node_names(self) -> tuple[str, ...]:
        """The virtual nodes."""

    async def open_log(
        self, namespace: str, pod: str, container: str, *, previous: bool
    ) -> LogSource:
        """The log of the container's current (or last) run, or of the run before it.

        The server has checked that the Pod and the container exist and that the Pod's status
        names such a run.

        :raises LogNotFoundError: the Pod has gone meanwhile.
        :raises LogUnavailableError: there is no log.
        """

    def is_running(self, uid: str, container: str) -> bool:
        """Whether a container of the Pod with this UID runs, by its supervisor's last word."""

    async def signal_container(
        self, uid: str, container: str, number: int, *, not_before_s: int
    ) -> None:
        """Signal a container's main process; of an MPI run every rank.

        :param uid: of its Pod.
        :param not_before_s: seconds after its start.
        :raises HpkError: it does not run, or its supervisor cannot be told.
        """

    async def review_access(self, request: AccessRequest) -> bool:
        """Ask the API server (SubjectAccessReview); the server caches the answer.

        :raises TransientError: the API server does not answer.
        """
