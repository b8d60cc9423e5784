"""The kubelet: wires its parts together and keeps them running.

startup → main loop → shutdown. On SIGTERM it only lets go: jobs, supervisors and containers go on,
and the next kubelet finds them by the journals.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpk.images.manager import ImageManager
from hpk.model.ids import PodUid
from hpk.model.plan import SupervisorSettings
from hpk.model.record import SupervisorRecord
from hpk.model.settings import KubeletSettings
from hpk.planning.job.site import SiteSettings
from hpk.slurm.base import SlurmBackend
from hpk.statefs import HpkPaths
from kubelet.api.apiserver import ApiServer
from kubelet.api.informer import PodInformer
from kubelet.api.store import StoreIdentity
from kubelet.descriptors import descriptors
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg
from kubelet.link.bundle import BundleBuilder
from kubelet.link.calls import Calls
from kubelet.link.channel import ChannelServer
from kubelet.nodes.node import NodeHealth
from kubelet.nodes.virtual_nodes import NodeRegistrar, VirtualNodes
from kubelet.pod_streams import PodStreamBackend
from kubelet.pods.pod_workers import PodWorkers
from kubelet.pods.runtime_classes import RuntimeClasses
from kubelet.pods.supervisors import Supervisors
from kubelet.pods.worker_services import WorkerServices
from kubelet.server.server import KubeletServer
from kubelet.shared_files import SharedFiles
from kubelet.status.events import EventRecorder
from kubelet.status.status_manager import StatusManager
from kubelet.submission.submitter import Submitter
from kubelet.tasks import keep_running, logged
from kubelet.view import ServerBackend

_THREADS = 32


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
        self._settings = settings
        self._api = api
        self._tasks: asyncio.TaskGroup | None = None
        self._files = SharedFiles(paths.home)
        observations = Observations(self._observed)
        self._pleg = Pleg(
            slurm=slurm,
            paths=paths,
            files=self._files,
            observations=observations,
            is_connected=lambda nonce: self._channel.session(nonce) is not None,
            missing=self._supervisor_missing,
            interval_s=settings.poll_interval_s,
        )
        self._nodes = VirtualNodes(
            registrar=NodeRegistrar(api, settings),
            slurm=slurm,
            default_partition=site.default_partition,
            health=self._health,
            first_known=self._nodes_known,
        )
        self._events = EventRecorder(api)
        self._images = ImageManager(paths)
        self._submitter = Submitter(
            paths=paths,
            files=self._files,
            slurm=slurm,
            settings=_supervisor_settings(paths, settings, site),
            zipapp=zipapp,
            call=self._observed,
        )
        self._workers = PodWorkers(
            WorkerServices(
                paths=paths,
                files=self._files,
                slurm=slurm,
                site=site,
                runtime_classes=RuntimeClasses(api),
                images=self._images,
                submitter=self._submitter,
                pleg=self._pleg,
                observations=observations,
                statuses=StatusManager(api),
                events=self._events,
                partition=self._nodes.partition,
                knows_partitions=lambda: bool(self._nodes.names()),
                session=lambda attempt: self._channel.session(attempt.nonce),
                spawn=self._spawn,
            ),
            shown_changed=self._shown_changed,
            gone=self._pod_gone,
        )
        self._bundles = BundleBuilder(api, settings, self._objects_changed)
        self._supervisors = Supervisors(
            workers=self._workers,
            observations=observations,
            pleg=self._pleg,
            bundles=self._bundles,
            events=self._events,
        )
        self._channel = ChannelServer(settings=settings, handler=self._supervisors)
        self._calls = Calls(self._channel, self._supervisors.dialled)
        self._pod_streams = PodStreamBackend(
            observations=observations,
            attempt=self._workers.attempt,
            session=self._channel.session,
        )
        self._store = StoreIdentity(api, self._files, paths.kubelet / "store.json")
        self._informer = PodInformer(api, self._store, self._workers)
        self._backend = ServerBackend(
            api=api,
            paths=paths,
            files=self._files,
            observations=observations,
            all_pods=self._workers.pods,
            find_pod=self._workers.find,
            attempt=self._workers.attempt,
            nodes=self._nodes.names,
            session=self._channel.session,
            problem=self._problem,
            numbers=self._numbers,
        )

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        # What other rooms read beside a program that they run may hang as any file may; asyncio's
        # own six threads would soon all do so.
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="others"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = KubeletServer()
        await server.start(self._settings, self._backend, self._pod_streams)
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
                ("files", self._files.keep_looking),
                ("events", self._events.run),
                ("nodes", self._nodes.keep_registered),
                ("leases", self._nodes.keep_leases),
                ("channel", self._channel.run),
                ("calls", self._calls.run),
                ("bundles", self._bundles.keep_looking),
                ("pleg", self._pleg.run),
                ("store", self._store.keep_noted),
                ("informer", self._informer.run),
            ):
                tasks.create_task(keep_running(name, loop), name=name)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._tasks is None:
            raise RuntimeError("the kubelet does not run")
        return self._tasks.create_task(logged(coroutine))

    def _health(self, slurm_version: str, slurm_problem: str) -> NodeHealth:
        return NodeHealth(
            slurm_version=slurm_version,
            slurm_problem=slurm_problem or self._pleg.problem,
            files_problem=self._files.problem,
            descriptors_problem=descriptors().problem,
        )

    def _numbers(self) -> dict[str, float]:
        return {
            "hpk_pods": self._workers.count,
            "hpk_pod_syncs_total": self._workers.syncs,
            "hpk_supervisors_connected": self._channel.connected,
        }

    def _problem(self) -> str:
        if not self._informer.synced.is_set():
            return "pods are not listed yet"
        return self._files.problem

    # What a part tells one that is made after it

    def _observed(self, uid: PodUid) -> None:
        self._workers.nudge(uid)

    def _supervisor_missing(self, record: SupervisorRecord) -> None:
        self._calls.want(record)

    def _nodes_known(self) -> None:
        self._workers.nudge_all()

    def _shown_changed(self, uid: PodUid) -> None:
        self._channel.refresh_bundles({uid})

    def _objects_changed(self, uids: set[PodUid]) -> None:
        self._channel.refresh_bundles(uids)

    def _pod_gone(self, uid: PodUid) -> None:
        self._supervisors.forget(uid)
        self._submitter.forget(uid)


def _supervisor_settings(
    paths: HpkPaths, settings: KubeletSettings, site: SiteSettings
) -> SupervisorSettings:
    return SupervisorSettings(
        endpoint_path=str(paths.endpoint),
        channel_ca_path=settings.channel_ca,
        heartbeat_path=str(paths.heartbeat),
        orphan_timeout_s=settings.orphan_timeout_s,
        local_root="/tmp",  # noqa: S108 - node-local; the supervisor makes a 0700 directory in it
        runtime_path=(),
        own_directories=site.own_directories,
    )
