"""What the kubelet API's endpoints get to see of the kubelet."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hpk.journal import Attempt
from hpk.model.errors import PermanentError, TransientError
from hpk.model.frames import SignalContainer
from hpk.model.ids import Nonce, PodUid
from hpk.model.record import ContainerPhase
from hpk.statefs import HpkPaths
from kubelet.api.apiserver import ApiError, ApiServer, Json
from kubelet.container_log import ContainerLog, log_path_of
from kubelet.descriptors import descriptors
from kubelet.evidence.observations import Observations
from kubelet.file_looks import FileLooks
from kubelet.link.session import Session
from kubelet.server.backend import (
    AccessRequest,
    ContainerNotFoundError,
    LogNotFoundError,
    LogSource,
    LogUnavailableError,
)
from kubelet.shared_files import SharedFiles

_SIGNAL_VERSION = 2
"""Supervisors of earlier protocols skip SignalContainer as a frame they do not know."""
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class ServerBackend:
    """Fulfils kubelet.server.backend.KubeletBackend."""

    def __init__(
        self,
        *,
        api: ApiServer,
        paths: HpkPaths,
        files: SharedFiles,
        observations: Observations,
        all_pods: Callable[[], list[Json]],
        find_pod: Callable[[str, str], Json | None],
        attempt: Callable[[PodUid], Attempt | None],
        nodes: Callable[[], tuple[str, ...]],
        session: Callable[[Nonce], Session | None],
        problem: Callable[[], str],
        numbers: Callable[[], Mapping[str, float]],
    ) -> None:
        """
        :param numbers: what other parts of the kubelet count, by metrics' names.
        """
        self._api = api
        self._paths = paths
        self._observations = observations
        self._files = files
        self._looks = FileLooks(files)
        self._all_pods = all_pods
        self._find_pod = find_pod
        self._attempt = attempt
        self._nodes = nodes
        self._session = session
        self._problem = problem
        self._numbers = numbers

    def pods(self) -> list[dict[str, Any]]:
        """All Pods of all virtual nodes, with the status reported last."""
        return self._all_pods()

    def find_pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The Pod of that name."""
        return self._find_pod(namespace, name)

    def health(self) -> str | None:
        """What is wrong with the kubelet itself; Slurm's troubles are the Node's conditions."""
        return self._problem() or None

    def metrics(self) -> Mapping[str, float]:
        """What the kubelet holds, and what is left of what it may have."""
        files = descriptors()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "process_open_fds": files.used,
            "process_max_fds": files.limit,
            "process_resident_memory_bytes": _resident_bytes(),
            "process_cpu_seconds_total": usage.ru_utime + usage.ru_stime,
            "hpk_shared_files_stalled": float(bool(self._files.problem)),
            **self._numbers(),
        }

    def node_names(self) -> tuple[str, ...]:
        """The virtual nodes."""
        return self._nodes()

    async def open_log(
        self, namespace: str, pod: str, container: str, *, previous: bool
    ) -> LogSource:
        """The log of a container's current or previous run."""
        found = self._find_pod(namespace, pod)
        if found is None:
            raise LogNotFoundError(f'pod "{pod}" not found')
        attempt = self._attempt(PodUid(found["metadata"]["uid"]))
        record = self._observations.get(attempt.nonce).record if attempt else None
        if attempt is None or record is None:
            raise LogUnavailableError(f'container "{container}" in pod "{pod}" has no log yet')
        containers = record.all_containers
        log_path = next(
            (log_path_of(c, previous=previous) for c in containers if c.name == container),
            None,
        )
        if log_path is None:
            kind = "previous terminated container" if previous else "container"
            raise LogUnavailableError(f'{kind} "{container}" in pod "{pod}" not found')
        nonce = attempt.nonce
        return ContainerLog(
            files=self._files,
            looks=self._looks,
            root=Path(self._paths.attempt(attempt.pod.uid, nonce).root),
            log_path=log_path,
            container=container,
            session=lambda: self._session(nonce),
            record=lambda: self._observations.get(nonce).record,
        )

    def is_running(self, uid: str, container: str) -> bool:
        """Whether a container runs, by its supervisor's last record."""
        attempt = self._attempt(PodUid(uid))
        return attempt is not None and self._runs(attempt, container)

    async def signal_container(
        self, uid: str, container: str, number: int, *, not_before_s: int
    ) -> None:
        """Have the pod's supervisor signal the container's main process."""
        attempt = self._attempt(PodUid(uid))
        if attempt is None or not self._runs(attempt, container):
            raise ContainerNotFoundError(container)
        session = self._session(attempt.nonce)
        if session is None:
            raise TransientError(
                f'the supervisor of pod "{attempt.pod.name}" is not connected', remedy="try again"
            )
        if session.protocol < _SIGNAL_VERSION:
            raise PermanentError(
                f'the supervisor of pod "{attempt.pod.name}" was started by an older hpk that'
                " could not signal containers",
                remedy="delete the Pod to end it",
            )
        await session.send(
            SignalContainer(container=container, number=number, not_before_s=not_before_s)
        )

    def _runs(self, attempt: Attempt, container: str) -> bool:
        record = self._observations.get(attempt.nonce).record
        return record is not None and any(
            c.name == container and c.state.phase is ContainerPhase.RUNNING
            for c in record.all_containers
        )

    async def review_access(self, request: AccessRequest) -> bool:
        """Whether the API server lets this user do this."""
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": request.user,
                "groups": list(request.groups),
                "resourceAttributes": {
                    "verb": request.verb,
                    "version": request.version,
                    "resource": request.resource,
                    "subresource": request.subresource,
                    "name": request.name,
                },
            },
        }
        try:
            answer = await self._api.create(_REVIEWS, body)
        except ApiError as error:
            raise TransientError(f"access review: {error}") from error
        return bool((answer.get("status") or {}).get("allowed"))
