"""What pods' supervisors say and ask over the channel, answered for the kubelet.

Records go to the observations, questions to the journal and the bundle builder; what a user should
know becomes an Event of the Pod. Frames and connections are kubelet.link.channel's.
"""

from __future__ import annotations

import asyncio

from hpk.journal import Attempt, read_pod
from hpk.model.bundle import Bundle
from hpk.model.errors import TransientError
from hpk.model.frames import Reject
from hpk.model.ids import Nonce, PodUid
from hpk.model.record import PodPhase, SupervisorRecord
from hpk.statefs import HpkPaths
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg
from kubelet.link.bundle import BundleBuilder, PodFacts
from kubelet.pods.pod_workers import PodWorkers
from kubelet.status.events import EventRecorder
from kubelet.submission.submitter import Submitter, is_revoked


class Supervisors:
    """The kubelet as the channel sees it. Fulfils kubelet.link.channel.ChannelHandler."""

    def __init__(
        self,
        *,
        paths: HpkPaths,
        workers: PodWorkers,
        observations: Observations,
        pleg: Pleg,
        submitter: Submitter,
        bundles: BundleBuilder,
        events: EventRecorder,
    ) -> None:
        self._paths = paths
        self._workers = workers
        self._observations = observations
        self._pleg = pleg
        self._submitter = submitter
        self._bundles = bundles
        self._events = events
        self._not_understood: set[PodUid] = set()

    def refusal(self, uid: PodUid, nonce: Nonce) -> Reject | None:
        """ChannelHandler: attempts that were revoked or withdrawn are not wanted."""
        attempt = self._attempt(uid, nonce)
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

    def session_changed(self, uid: PodUid, nonce: Nonce, *, is_connected: bool) -> None:
        """ChannelHandler: a session began or ended."""
        self._observations.put_session(uid, nonce, is_connected=is_connected)
        self._pleg.hurry()
        self._workers.nudge(uid)

    def not_understood(self, uid: PodUid, why: str) -> None:
        """ChannelHandler: a supervisor speaks a later protocol than we do; told once."""
        worker = self._workers.get(uid)
        if worker is not None and worker.has_object and uid not in self._not_understood:
            self._not_understood.add(uid)
            self._events.warning(worker.pod, "SupervisorTooNew", why)

    def forget(self, uid: PodUid) -> None:
        """Nothing of the pod is left."""
        self._not_understood.discard(uid)
        self._bundles.tokens.forget(uid)

    async def build_bundle(
        self, uid: PodUid, nonce: Nonce, *, protocol: int, fresh: bool
    ) -> tuple[Bundle, float | None]:
        """ChannelHandler: the attempt's bundle; what is missing becomes an event of the Pod."""
        worker = self._workers.get(uid)
        if worker is None or not worker.has_object:
            raise TransientError(f"the API server does not know the Pod of {uid}")
        attempt = await asyncio.to_thread(self._attempt, uid, nonce)
        if attempt is None:
            raise TransientError(f"attempt {nonce} is not in the journal")
        spec = await asyncio.to_thread(self._submitter.load_spec, attempt)
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

    def _attempt(self, uid: PodUid, nonce: Nonce) -> Attempt | None:
        journal = read_pod(self._paths, uid)
        attempts = journal.attempts if journal else ()
        return next((attempt for attempt in attempts if attempt.nonce == nonce), None)
