"""Exec, attach and port-forward: from a Pod's UID to the stream of its supervisor.

Refusals in upstream's words, where it has some: pkg/kubelet/kubelet_pods.go, GetExec, GetAttach and
GetPortForward.
"""

from __future__ import annotations

from collections.abc import Callable

from hpk.journal import Attempt
from hpk.model.frames import AttachOpen, DialOpen, ExecOpen, TerminalSize
from hpk.model.ids import Nonce, PodRef, PodUid
from hpk.model.record import ContainerPhase, PodPhase
from kubelet.evidence.observations import Observations
from kubelet.link.session import Session
from kubelet.link.streams import StreamOpen
from kubelet.server.streams import RemoteStream, StreamRefusedError, Streams


class PodStreamBackend:
    """Fulfils kubelet.server.streams.StreamBackend."""

    def __init__(
        self,
        *,
        observations: Observations,
        attempt: Callable[[PodUid], Attempt | None],
        session: Callable[[Nonce], Session | None],
    ) -> None:
        self._observations = observations
        self._attempt = attempt
        self._session = session

    async def open_exec(
        self,
        uid: str,
        container: str,
        command: tuple[str, ...],
        streams: Streams,
        size: TerminalSize | None,
    ) -> RemoteStream:
        """See StreamBackend.open_exec."""
        attempt = self._attempt(PodUid(uid))
        if attempt is None or not self._runs(attempt, container):
            raise StreamRefusedError(f'container not found ("{container}")')
        return await self._open(
            attempt,
            lambda number: ExecOpen(
                id=number,
                container=container,
                command=command,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                tty=streams.tty,
                size=size,
            ),
        )

    async def open_attach(
        self, uid: str, container: str, streams: Streams, size: TerminalSize | None
    ) -> RemoteStream:
        """See StreamBackend.open_attach."""
        attempt = self._attempt(PodUid(uid))
        if attempt is None:
            raise StreamRefusedError(f"container {container} not found in pod {uid}")
        if not self._runs(attempt, container):
            name = _full_name(attempt.pod)
            raise StreamRefusedError(f"container {container} not found in pod {name}")
        return await self._open(
            attempt,
            lambda number: AttachOpen(
                id=number,
                container=container,
                stdin=streams.stdin,
                stdout=streams.stdout,
                stderr=streams.stderr,
                size=size,
            ),
        )

    async def open_dial(self, uid: str, port: int) -> RemoteStream:
        """See StreamBackend.open_dial."""
        attempt = self._attempt(PodUid(uid))
        record = self._observations.get(attempt.nonce).record if attempt is not None else None
        if attempt is None or record is None or record.phase is PodPhase.FINISHED:
            name = uid if attempt is None else _full_name(attempt.pod)
            raise StreamRefusedError(f'pod not found ("{name}")')
        return await self._open(attempt, lambda number: DialOpen(id=number, port=port))

    async def _open(self, attempt: Attempt, make: Callable[[int], StreamOpen]) -> RemoteStream:
        session = self._session(attempt.nonce)
        if session is None:
            raise StreamRefusedError(self._why_apart(attempt), remedy="try again")
        return await session.open_stream(make)

    def _why_apart(self, attempt: Attempt) -> str:
        name = attempt.pod.name
        record = self._observations.get(attempt.nonce).record
        if record is None or not record.channel_port:
            return f'the supervisor of pod "{name}" is not connected'
        return (
            f'no connection leads from node {record.host}, where pod "{name}" runs, to the control'
            f" plane, and none back to {record.host_ip}:{record.channel_port} so far: only its"
            " state and logs are seen, through the shared file system"
        )

    def _runs(self, attempt: Attempt, container: str) -> bool:
        record = self._observations.get(attempt.nonce).record
        return record is not None and any(
            c.name == container and c.state.phase is ContainerPhase.RUNNING
            for c in record.all_containers
        )


def _full_name(pod: PodRef) -> str:
    """As upstream builds it: BuildPodFullName."""
    return f"{pod.name}_{pod.namespace}"
