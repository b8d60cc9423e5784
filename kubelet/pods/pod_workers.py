"""The pod workers: one for each Pod UID, started when a Pod is first heard of.

Hands what the informer sees to the worker concerned, and starts workers for the pods that only
their journals know. What a worker does with it is kubelet.pods.pod_worker's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from hpk.journal import Attempt, PodJournal
from hpk.model.ids import PodUid
from kubelet.api.apiserver import Json
from kubelet.pods.orphaned_pods import (
    keep_no_longer,
    keep_pod,
    kept_pods,
    orphaned_pods,
)
from kubelet.pods.pod_worker import PodWorker
from kubelet.pods.worker_services import WorkerServices

log = logging.getLogger(__name__)


class PodWorkers:
    """All pods' workers. Fulfils kubelet.api.informer.PodHandler."""

    def __init__(
        self,
        services: WorkerServices,
        *,
        shown_changed: Callable[[PodUid], None],
        gone: Callable[[PodUid], None],
    ) -> None:
        """
        :param shown_changed: called when metadata that a volume may show has changed.
        :param gone: called when a pod's worker is done: nothing of the pod is left.
        """
        self._services = services
        self._shown_changed = shown_changed
        self._gone = gone
        self._workers: dict[PodUid, PodWorker] = {}
        self._by_name: dict[tuple[str, str], PodUid] = {}

    def get(self, uid: PodUid) -> PodWorker | None:
        """A pod's worker."""
        return self._workers.get(uid)

    @property
    def count(self) -> int:
        """How many pods there are, orphaned ones among them."""
        return len(self._workers)

    @property
    def syncs(self) -> int:
        """How many times any of them was looked at."""
        return self._services.counts["syncs"]

    def attempt(self, uid: PodUid) -> Attempt | None:
        """The attempt that speaks for a pod."""
        worker = self._workers.get(uid)
        return worker.state.current if worker is not None else None

    def pods(self) -> list[Json]:
        """The Pods that the API server has, with the status reported last."""
        statuses = self._services.statuses
        return [statuses.latest(w.pod) for w in self._workers.values() if w.has_object]

    def find(self, namespace: str, name: str) -> Json | None:
        """The Pod of that name, with the status reported last; None where there is none."""
        uid = self._by_name.get((namespace, name))
        worker = self._workers.get(uid) if uid is not None else None
        if worker is None or not worker.has_object:
            return None
        return self._services.statuses.latest(worker.pod)

    def nudge(self, uid: PodUid) -> None:
        """Something about this pod was observed."""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.nudge()

    def nudge_all(self) -> None:
        """Something was observed that any pod may have waited for."""
        for worker in self._workers.values():
            worker.nudge()

    def pod_changed(self, pod: Json) -> None:
        """PodHandler: a Pod is new or has changed."""
        uid = PodUid(pod["metadata"]["uid"])
        worker = self._workers.get(uid)
        if worker is None:
            worker = self._start(uid, PodWorker(pod, self._services))
        elif _shown(worker.pod) != _shown(pod):
            self._shown_changed(uid)
        worker.update(pod)

    def pod_deleted(self, pod: Json) -> None:
        """PodHandler: a Pod's deletion was observed."""
        uid = PodUid(pod["metadata"]["uid"])
        worker = self._workers.get(uid) or self._start(uid, PodWorker(pod, self._services))
        worker.object_gone(pod)

    def pods_listed(self, pods: list[Json], *, is_same_store: bool) -> None:
        """PodHandler: a whole list."""
        listed = {PodUid(pod["metadata"]["uid"]) for pod in pods}
        for pod in pods:
            self.pod_changed(pod)
        missing = self._workers.keys() - listed
        for uid in missing:
            self._workers[uid].object_missing(was_deleted=is_same_store)
        if not is_same_store:
            self._services.spawn(self._keep(missing))
        self._services.spawn(self._take_up_orphans(listed, is_same_store=is_same_store))

    async def _take_up_orphans(self, listed: set[PodUid], *, is_same_store: bool) -> None:
        """Start workers for the pods that were not listed: they end and forget those that were
        deleted, and keep the jobs of those that are missing for reasons unknown, for good."""
        kept = await self._services.files.do(kept_pods, self._services.paths)
        for uid in kept & listed:
            await self._services.files.do(keep_no_longer, self._services.paths, uid)

        def is_known(uid: PodUid) -> bool:
            return uid in listed or uid in self._workers

        def is_deleted(journal: PodJournal) -> bool:
            return journal.deleted or (is_same_store and journal.pod.uid not in kept)

        paths, files = self._services.paths, self._services.files
        async for journal in orphaned_pods(paths, files, is_known, is_deleted):
            uid, deleted = journal.pod.uid, is_deleted(journal)
            log.warning("pod is unknown to the API server pod=%s deleted=%s", journal.pod, deleted)
            if not deleted:
                await self._services.files.do(keep_pod, self._services.paths, uid)
            if is_known(uid):
                continue  # it has turned up meanwhile
            self._start(uid, PodWorker.of_absent(journal, self._services, deleted=deleted))

    async def _keep(self, uids: set[PodUid]) -> None:
        for uid in uids:
            await self._services.files.do(keep_pod, self._services.paths, uid)

    def _start(self, uid: PodUid, worker: PodWorker) -> PodWorker:
        self._workers[uid] = worker
        self._by_name[worker.ref.namespace, worker.ref.name] = uid
        self._services.spawn(self._run(uid, worker))
        return worker

    async def _run(self, uid: PodUid, worker: PodWorker) -> None:
        await worker.run()
        if self._workers.get(uid) is worker:
            del self._workers[uid]
            name = (worker.ref.namespace, worker.ref.name)
            if self._by_name.get(name) == uid:
                del self._by_name[name]
            self._gone(uid)


def _shown(pod: Json) -> tuple[object, object]:
    """What of a Pod's metadata may change and a volume may show."""
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")
