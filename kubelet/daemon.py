"""The kubelet: wires its parts together and keeps them running.

startup → main loop → shutdown. On SIGTERM it only lets go: jobs, supervisors and containers go on,
and the next kubelet finds them by the journals.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hpk.images.manager import ImageManager
from hpk.journal import Attempt, PodJournal, known_pods, read_pod
from hpk.model import codec
from hpk.model.bundle import Bundle
from hpk.model.errors import HpkError, TransientError
from hpk.model.frames import Reject
from hpk.model.ids import Nonce, PodUid
from hpk.model.job import Partition
from hpk.model.plan import SupervisorSettings
from hpk.model.record import PodPhase, SupervisorRecord
from hpk.model.settings import KubeletSettings
from hpk.planning.site import SiteSettings, prefer_partition
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths
from kubelet.apiserver import ApiError, ApiServer, Json
from kubelet.backend import ServerBackend
from kubelet.bundle import BundleBuilder, PodFacts
from kubelet.channel import ChannelServer
from kubelet.events import EventRecorder
from kubelet.informer import PodInformer
from kubelet.launcher import Launcher, is_revoked
from kubelet.node import LEASE_RENEW_S, NodeRegistrar, SlurmHealth, plan_node_names
from kubelet.observations import Observations
from kubelet.pleg import Pleg
from kubelet.pod_worker import PodWorker, WorkerServices
from kubelet.server.server import KubeletServer
from kubelet.status_manager import StatusManager
from kubelet.tasks import keep_running

log = logging.getLogger(__name__)

_PARTITIONS_AGAIN_S = 60.0
_FIRST_ANSWER_PAUSE_S = 2.0
_KEEP_UNKNOWN_S = 24 * 3600.0


class Kubelet:
    """One kubelet for all virtual nodes of one HPK home."""

    def __init__(
        self,
        *,
        paths: HpkPaths,
        settings: KubeletSettings,
        api: ApiServer,
        slurm: SlurmBackend,
        zipapp: Path,
        site: SiteSettings,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._api = api
        self._slurm = slurm
        self._site = site
        self._nodes: dict[str, Partition] = {}
        self._workers: dict[PodUid, PodWorker] = {}
        self._started_at_s = time.time()
        self._observations = Observations(self._observed)
        self._channel = ChannelServer(settings=settings, paths=paths, handler=self)
        self._pleg = Pleg(
            slurm=slurm,
            paths=paths,
            observations=self._observations,
            is_connected=lambda nonce: self._channel.session(nonce) is not None,
            interval_s=settings.poll_interval_s,
        )
        self._events = EventRecorder(api)
        self._statuses = StatusManager(api)
        self._images = ImageManager(paths)
        self._launcher = Launcher(
            paths=paths, slurm=slurm, settings=_supervisor_settings(paths, settings), zipapp=zipapp
        )
        self._bundles = BundleBuilder(api, settings)
        self._registrar = NodeRegistrar(api, settings)
        self._informer = PodInformer(api, self)
        self._backend = ServerBackend(
            api=api,
            paths=paths,
            observations=self._observations,
            all_pods=self._known_pods,
            nodes=lambda: tuple(self._nodes),
            session=self._channel.session,
            problem=lambda: "" if self._informer.synced.is_set() else "pods are not listed yet",
        )
        self._not_understood: set[PodUid] = set()
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = KubeletServer()
        await server.start(self._settings, self._backend)
        runner = asyncio.ensure_future(self._run_loops())
        stopper = asyncio.ensure_future(stop.wait())
        await asyncio.wait([runner, stopper], return_when=asyncio.FIRST_COMPLETED)
        stopper.cancel()
        runner.cancel()
        ended, _ = await asyncio.gather(runner, stopper, return_exceptions=True)
        await server.stop()
        await self._images.close()
        await self._api.close()
        if isinstance(ended, Exception):
            raise ended

    async def _run_loops(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for name, loop in (
                ("events", self._events.run),
                ("nodes", self._keep_nodes),
                ("leases", self._keep_leases),
                ("channel", self._channel.run),
                ("pleg", self._pleg.run),
                ("informer", self._informer.run),
            ):
                tasks.create_task(keep_running(name, loop), name=name)

    # Nodes

    async def _keep_nodes(self) -> None:
        while True:
            try:
                await self._register_nodes()
                pause_s = _PARTITIONS_AGAIN_S
            except (HpkError, OSError) as error:
                log.warning("nodes not registered: %s", error)
                pause_s = _FIRST_ANSWER_PAUSE_S if not self._nodes else 10.0
            await asyncio.sleep(pause_s)

    async def _register_nodes(self) -> None:
        health = SlurmHealth(version=await self._slurm.version(), problem=self._pleg.problem)
        partitions = await self._slurm.partitions()
        nodes = plan_node_names(prefer_partition(partitions, self._site.default_partition))
        for name, partition in nodes.items():
            await self._registrar.register(name, partition, health)
            if name not in self._nodes:
                log.info("node registered node=%s partition=%s", name, partition.name)
        first = not self._nodes
        self._nodes = nodes
        if first:
            for worker in self._workers.values():
                worker.nudge()

    async def _keep_leases(self) -> None:
        while True:
            for name in list(self._nodes):
                try:
                    await self._registrar.renew_lease(name)
                except ApiError as error:
                    log.warning("lease of %s not renewed: %s", name, error)
            await asyncio.sleep(LEASE_RENEW_S if self._nodes else 0.2)

    def _partition(self, node: str) -> Partition | None:
        # Asked anew each time: the nodes may be known only after the pods, and change.
        return self._nodes.get(node)

    # Pods

    def pod_changed(self, pod: Json) -> None:
        """PodHandler: a Pod is new or has changed."""
        uid = PodUid(pod["metadata"]["uid"])
        worker = self._workers.get(uid)
        if worker is None:
            worker = self._add_worker(uid, pod)
        elif _shown(worker.pod) != _shown(pod):
            self._channel.refresh_bundle(uid)
        worker.update(pod)

    def pod_deleted(self, pod: Json) -> None:
        """PodHandler: a Pod's deletion was observed."""
        uid = PodUid(pod["metadata"]["uid"])
        worker = self._workers.get(uid) or self._add_worker(uid, pod)
        worker.object_gone(pod)

    def pods_listed(self, pods: list[Json]) -> None:
        """PodHandler: a whole list."""
        listed = {PodUid(pod["metadata"]["uid"]) for pod in pods}
        for pod in pods:
            self.pod_changed(pod)
        for uid, worker in self._workers.items():
            if uid not in listed:
                worker.object_missing()
        self._spawn(self._find_absent(listed))

    def _add_worker(self, uid: PodUid, pod: Json) -> PodWorker:
        return self._start_worker(uid, PodWorker(pod, self._services()))

    def _start_worker(self, uid: PodUid, worker: PodWorker) -> PodWorker:
        self._workers[uid] = worker
        self._spawn(self._run_worker(uid, worker))
        return worker

    def _services(self) -> WorkerServices:
        return WorkerServices(
            paths=self._paths,
            slurm=self._slurm,
            site=self._site,
            images=self._images,
            launcher=self._launcher,
            pleg=self._pleg,
            observations=self._observations,
            statuses=self._statuses,
            events=self._events,
            partition=self._partition,
            knows_partitions=lambda: bool(self._nodes),
            session=lambda attempt: self._channel.session(attempt.nonce),
            spawn=self._spawn,
        )

    def _known_pods(self) -> list[Json]:
        workers = self._workers.values()
        return [self._statuses.latest(w.pod) for w in workers if w.has_object]

    async def _run_worker(self, uid: PodUid, worker: PodWorker) -> None:
        await worker.run()
        if self._workers.get(uid) is worker:
            del self._workers[uid]
            self._not_understood.discard(uid)
            self._bundles.tokens.forget(uid)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._tasks is None:
            raise RuntimeError("the kubelet does not run")
        return self._tasks.create_task(_logged(coroutine))

    def _observed(self, uid: PodUid) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.nudge()

    # Pods that only their journals know

    async def _find_absent(self, listed: set[PodUid]) -> None:
        """Take up the pods that were not listed: end those whose deletion was observed, keep the
        jobs of the others, remove what is left of those long gone."""
        for uid in await asyncio.to_thread(known_pods, self._paths):
            if uid in listed or uid in self._workers:
                continue
            try:
                journal = await asyncio.to_thread(read_pod, self._paths, uid)
                if journal is None or not _is_live(journal):
                    await asyncio.to_thread(_remove_if_old, self._paths, uid)
                    continue
            except OSError as error:
                log.warning("journal of pod %s cannot be read: %s", uid, error)
                continue
            if uid in self._workers:
                continue
            log.warning(
                "pod is unknown to the API server pod=%s deleted=%s", journal.pod, journal.deleted
            )
            worker = PodWorker.of_absent(journal, self._services(), deleted=journal.deleted)
            self._start_worker(uid, worker)

    # The channel

    def refusal(self, uid: PodUid, nonce: Nonce) -> Reject | None:
        """ChannelHandler: attempts that were revoked or withdrawn are not wanted."""
        journal = read_pod(self._paths, uid)
        attempt = next((a for a in journal.attempts if a.nonce == nonce), None) if journal else None
        if attempt is None:
            return Reject(reason="no such attempt in the journal", stop=False)
        if attempt.revoked or is_revoked(self._paths, uid, nonce):
            return Reject(reason="this attempt was revoked", stop=True)
        return None

    def record_arrived(self, record: SupervisorRecord) -> None:
        """ChannelHandler: a supervisor reported."""
        self._observations.put_record(record)
        if record.phase is PodPhase.FINISHED:
            self._pleg.hurry()

    def session_changed(self, uid: PodUid, nonce: Nonce) -> None:
        """ChannelHandler: a session began or ended."""
        self._pleg.hurry()
        worker = self._workers.get(uid)
        if worker is not None:
            worker.nudge()

    def not_understood(self, uid: PodUid, why: str) -> None:
        """ChannelHandler: a supervisor speaks a later protocol than we do."""
        worker = self._workers.get(uid)
        if worker is not None and worker.has_object and uid not in self._not_understood:
            self._not_understood.add(uid)
            self._events.warning(worker.pod, "SupervisorTooNew", why)

    async def build_bundle(
        self, uid: PodUid, nonce: Nonce, *, protocol: int, fresh: bool
    ) -> tuple[Bundle, float | None]:
        """ChannelHandler: the attempt's bundle; what is missing becomes an event of the Pod."""
        worker = self._workers.get(uid)
        if worker is None or not worker.has_object:
            raise TransientError(f"the API server does not know the Pod of {uid}")
        journal = await asyncio.to_thread(read_pod, self._paths, uid)
        attempt: Attempt | None = None
        if journal is not None:
            attempt = next((a for a in journal.attempts if a.nonce == nonce), None)
        if attempt is None:
            raise TransientError(f"attempt {nonce} is not in the journal")
        spec = await asyncio.to_thread(self._launcher.load_spec, attempt)
        record = self._observations.get(nonce).record
        facts = PodFacts(
            pod=worker.pod, host_ip=record.host_ip if record else "", protocol=protocol
        )
        try:
            bundle, again_s = await self._bundles.build(spec.plan, facts, fresh=fresh)
        except TransientError as error:
            if error.reason:
                self._events.warning(worker.pod, error.reason, str(error))
            raise
        for container in bundle.containers:
            if container.error:
                self._events.warning(worker.pod, "Failed", f"Error: {container.error}")
        return bundle, again_s


def _supervisor_settings(paths: HpkPaths, settings: KubeletSettings) -> SupervisorSettings:
    return SupervisorSettings(
        endpoint_path=str(paths.endpoint),
        channel_ca_path=settings.channel_ca,
        heartbeat_path=str(paths.heartbeat),
        orphan_timeout_s=settings.orphan_timeout_s,
        local_root="/tmp",  # noqa: S108 - node-local; the supervisor makes a 0700 directory in it
        runtime_path=(),
        own_directories=paths.own_directories,
    )


def _shown(pod: Json) -> tuple[object, object]:
    """What of a Pod's metadata may change and a volume may show."""
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")


def _is_live(journal: PodJournal) -> bool:
    """Whether a job of it may be in Slurm, or its deletion waits to be finished."""
    attempt = journal.current
    return journal.deleted or (attempt is not None and attempt.is_open)


def _remove_if_old(paths: HpkPaths, uid: PodUid) -> None:
    """Remove the files of a pod that ended while nobody looked.

    Not at once: a restored store may bring the Pod back, and then they say that it has run.
    """
    directory = paths.pod_dir(uid)
    newest_s = max(
        (path.stat().st_mtime for path in (directory, paths.journal(uid)) if path.exists()),
        default=0.0,
    )
    if time.time() - newest_s > _KEEP_UNKNOWN_S:
        shutil.rmtree(directory, ignore_errors=True)
        log.info("files of a pod long gone removed uid=%s", uid)


async def _logged(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end; a failure is logged and stays here, so that the other pods go on."""
    try:
        await coroutine
    except Exception:
        log.exception("task failed")


def load_settings(paths: HpkPaths) -> KubeletSettings:
    """The settings that `hpk up` wrote.

    :raises ParseError: they are damaged. :raises FileNotFoundError: there are none.
    """
    return codec.loads(KubeletSettings, (paths.kubelet / "settings.json").read_bytes())
