"""What pods' supervisors say and ask over the channel, answered for the kubelet.

Records go to the observations, questions to the pods' states and the bundle builder; what a user
should know becomes an Event of the Pod. Frames and connections are kubelet.link.channel's.
"""

from __future__ import annotations

from hpk.model.bundle import Bundle
from hpk.model.errors import TransientError
from hpk.model.frames import Hello, Reject
from hpk.model.ids import Nonce, PodUid
from hpk.model.record import PodPhase, StopCause, SupervisorRecord
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg
from kubelet.link.bundle import BundleBuilder, PodFacts
from kubelet.pods.pod_workers import PodWorkers
from kubelet.status.events import EventRecorder

_SETTLED_WITHIN_S = 2.0
"""How long a supervisor is kept waiting that is faster than sbatch, or than our reading of the
journals after a start; then it is told to come later."""
_LATER = Reject(reason="come again later: this pod is not known yet", stop=False)
_UNKNOWN = Reject(reason="unknown attempt or wrong token", stop=False)


class Supervisors:
    """The kubelet as the channel sees it. Fulfils kubelet.link.channel.ChannelHandler."""

    def __init__(
        self,
        *,
        workers: PodWorkers,
        observations: Observations,
        pleg: Pleg,
        bundles: BundleBuilder,
        events: EventRecorder,
    ) -> None:
        self._workers = workers
        self._observations = observations
        self._pleg = pleg
        self._bundles = bundles
        self._events = events
        self._not_understood: set[PodUid] = set()

    async def refusal(self, hello: Hello) -> Reject | None:
        """ChannelHandler: attempts that were revoked or withdrawn are not wanted.

        A token is good for one job alone: a copy of it that lies on a dead node speaks for nobody.
        """
        worker = self._workers.get(hello.uid)
        if worker is None or not await worker.state.wait_settled(_SETTLED_WITHIN_S):
            return _LATER
        attempt = worker.state.find(hello.nonce)
        if attempt is None or not worker.state.takes_token(hello.nonce, hello.token):
            return _UNKNOWN
        if attempt.revoked:
            return Reject(reason="this attempt was revoked", stop=True)
        if attempt.job_id is not None and attempt.job_id != hello.job_id:
            reason = f"this attempt is Slurm job {attempt.job_id}, not {hello.job_id}"
            return Reject(reason=reason, stop=False)
        return None

    def record_arrived(self, record: SupervisorRecord) -> None:
        """ChannelHandler: a supervisor reported."""
        self._observations.put_record(record)
        if record.phase is PodPhase.FINISHED and record.stop_cause is StopCause.SIGNALLED:
            self._pleg.hurry()  # of any other end it says all there is to say

    def session_changed(self, uid: PodUid, nonce: Nonce, *, is_connected: bool) -> None:
        """ChannelHandler: a session began or ended."""
        self._observations.put_session(uid, nonce, is_connected=is_connected)
        record = self._observations.get(nonce).record
        if not is_connected and (record is None or record.phase is not PodPhase.FINISHED):
            self._pleg.hurry()
        self._workers.nudge(uid)

    def not_understood(self, uid: PodUid, why: str) -> None:
        """ChannelHandler: a supervisor speaks a later protocol than we do; told once."""
        worker = self._workers.get(uid)
        if worker is not None and worker.has_object and uid not in self._not_understood:
            self._not_understood.add(uid)
            self._events.warning(worker.pod, "SupervisorTooNew", why)

    def dialled(self, record: SupervisorRecord) -> None:
        """Its channel is one that this side has opened."""
        worker = self._workers.get(record.uid)
        if worker is not None and worker.has_object:
            self._events.normal(
                worker.pod,
                "SupervisorDialled",
                f"No connection leads from node {record.host} to the control plane: the pod's"
                " supervisor was dialled there",
            )

    def forget(self, uid: PodUid) -> None:
        """Nothing of the pod is left."""
        self._not_understood.discard(uid)
        self._bundles.forget(uid)

    async def build_bundle(
        self, uid: PodUid, nonce: Nonce, *, protocol: int
    ) -> tuple[Bundle, float | None]:
        """ChannelHandler: the attempt's bundle; what is missing becomes an event of the Pod."""
        worker = self._workers.get(uid)
        if worker is None or not worker.has_object:
            raise TransientError(f"the API server does not know the Pod of {uid}")
        attempt = worker.state.find(nonce)
        plan = await worker.state.plan(attempt) if attempt is not None else None
        if plan is None:
            raise TransientError(f"the plan of attempt {nonce} is not there")
        record = self._observations.get(nonce).record
        facts = PodFacts(
            pod=worker.pod,
            host_ip=record.host_ip if record else "",
            protocol=protocol,
            since_s=worker.since_s,
        )
        try:
            bundle, again_s = await self._bundles.build(plan, facts)
        except TransientError as error:
            if error.reason:
                self._events.warning(worker.pod, error.reason, str(error))
            raise
        for container in bundle.containers:
            if container.error:
                self._events.warning(worker.pod, "Failed", f"Error: {container.error}")
        return bundle, again_s
