"""One pod's worker, from its creation to its end: real journals, an API server over real HTTP.

Slurm and its submission are what a test says they are; they have tests of their own.
"""

from __future__ import annotations

import asyncio
import copy
import errno
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from hpk.durable import claim, private_directory, write_atomically
from hpk.journal import Attempt, PodJournal, Step, read_pod, record_step
from hpk.model import codec
from hpk.model.errors import HpkError, PermanentError
from hpk.model.frames import PodUpdate, StatusAck, Stop
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, JobState, Partition
from hpk.model.layout import AttemptLayout
from hpk.model.placement import Placement
from hpk.model.plan import ImagePlan, PodPlan
from hpk.model.plan.job_spec import SupervisorSettings
from hpk.model.record import PodPhase, StopCause
from hpk.statefs import HpkPaths
from kubelet.evidence import observations as observations_module
from kubelet.evidence.observations import Observations
from kubelet.evidence.pleg import Pleg
from kubelet.pods import pod_worker
from kubelet.pods.orphaned_pods import keep_pod
from kubelet.pods.pod_worker import PodWorker
from kubelet.pods.pod_workers import PodWorkers
from kubelet.pods.runtime_classes import RuntimeClasses
from kubelet.pods.worker_services import WorkerServices
from kubelet.shared_files import SharedFiles
from kubelet.status.events import EventRecorder
from kubelet.status.status_manager import StatusManager
from kubelet.submission import submitter as submitter_module
from kubelet.submission.submitter import Submitter, UnderWay
from tests.planning import IMAGE, MAIN, SITE, a_pod
from tests.pod_api import PodApi, serve_pods
from tests.records import a_record

NONCE = Nonce("0123456789abcdef")
JOB = SlurmJobId(7)


@dataclass
class Slurm:
    """Submits, or refuses with ``refusal``; ``calls`` are the submissions, ``cancelled`` the jobs
    and what the API server said of the Pod when they were."""

    paths: HpkPaths
    phase: Callable[[], Any]
    refusal: HpkError | None = None
    calls: int = 0
    cancelled: list[tuple[Any, Any]] = field(default_factory=list)

    async def submit(
        self, pod: PodRef, plan: PodPlan, *, under_way: UnderWay, **_: object
    ) -> Attempt:
        async with under_way():
            return self._submit(pod)

    def _submit(self, pod: PodRef) -> Attempt:
        self.calls += 1
        if self.refusal is not None:
            raise self.refusal
        layout = self.paths.attempt(pod.uid, NONCE)
        private_directory(Path(layout.root))
        write_atomically(Path(layout.token), "secret")
        record_step(self.paths, pod, Step.INTENT, nonce=NONCE)
        record_step(self.paths, pod, Step.SUBMITTED, nonce=NONCE, placement=Placement(JOB))
        journal = read_pod(self.paths, pod.uid)
        assert journal is not None
        assert journal.current is not None
        return journal.current

    async def cancel(self, job: Any) -> dict[Any, HpkError]:
        self.cancelled.append((job, self.phase()))
        return {}

    def job_ended(self) -> None:
        pass

    def track(self, attempt: Attempt) -> None:
        pass

    def untrack(self, nonce: Nonce) -> None:
        pass

    def hurry(self) -> None:
        pass

    async def ensure(self, reference: str, *, pull_policy: str, **_: object) -> ImagePlan:
        return IMAGE


@dataclass
class World:
    api: PodApi
    slurm: Slurm
    services: WorkerServices
    observations: Observations
    partitions: dict[str, Partition]
    worker: PodWorker
    sessions: list[Any]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = next(iter(self.api.pods.values()))["status"]
        return status

    def conditions(self) -> dict[str, Any]:
        return {c["type"]: c for c in self.status.get("conditions") or []}

    def watched(self) -> None:
        """The worker sees the Pod as it is now."""
        self.worker.update(self.api.watched(self.worker.ref.name))

    def see(self, state: JobState, nonce: Nonce = NONCE) -> None:
        job = JobObservation(
            job_id=JOB,
            name="",
            state=state,
            reason="",
            nodes="",
            exit_code=None,
            signal=0,
            start_time_s=None,
            end_time_s=None,
            source="squeue",
        )
        self.observations.put_job(self.worker.ref.uid, nonce, job)

    async def looked(self) -> None:
        """Until the Pod has been looked at once more."""
        before = self.services.counts["syncs"]
        self.worker.nudge()
        await self.until(lambda: self.services.counts["syncs"] > before)

    async def shown(self, pod: dict[str, Any]) -> None:
        """The worker is shown the Pod, and looks at it."""
        before = self.services.counts["syncs"]
        self.worker.update(pod)
        await self.until(lambda: self.services.counts["syncs"] > before)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serve_pods(tmp_path) as (pods, api):
        paths = HpkPaths(home=tmp_path / "home", cache=tmp_path / "cache")
        private_directory(paths.pods)
        made = a_pod(spec={"restartPolicy": "Always", "nodeName": "main"})
        made["metadata"] |= {"namespace": "default", "uid": "0a1b"}
        made["status"] = {"phase": "Pending"}
        name = made["metadata"]["name"]
        pods.pods[name] = made
        slurm = Slurm(paths, lambda: (made["status"]["phase"], made["status"].get("reason")))
        observations = Observations(lambda uid: worker.nudge())
        partitions = {"main": MAIN}
        sessions: list[Any] = []
        tasks: set[asyncio.Task[None]] = set()

        def spawn(coroutine: Any) -> asyncio.Task[None]:
            task: asyncio.Task[None] = asyncio.ensure_future(coroutine)
            tasks.add(task)
            return task

        events = EventRecorder(api)
        services = WorkerServices(
            paths=paths,
            files=SharedFiles(tmp_path),
            slurm=cast(Any, slurm),
            site=SITE,
            runtime_classes=RuntimeClasses(api),
            images=slurm,
            submitter=cast(Submitter, slurm),
            pleg=cast(Pleg, slurm),
            observations=observations,
            statuses=StatusManager(api),
            events=events,
            partition=partitions.get,
            knows_partitions=lambda: True,
            session=lambda attempt: sessions[-1] if sessions else None,
            spawn=spawn,
        )
        worker = PodWorker(pods.watched(name), services)
        spawn(events.run())
        yield World(pods, slurm, services, observations, partitions, worker, sessions, tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(world: World) -> None:
    world.services.spawn(world.worker.run())


async def test_a_pod_becomes_a_job_and_is_told_of_once(world: World) -> None:
    run(world)
    await world.until(lambda: world.worker.state.current is not None)
    await world.until(lambda: world.conditions().get("Initialized"))
    await world.looked()
    patches = len(world.api.patches)
    for _ in range(3):
        world.watched()
        await world.looked()
    assert len(world.api.patches) == patches
    assert world.worker.state.takes_token(NONCE, "secret")
    assert world.slurm.calls == 1


async def test_a_pod_that_is_always_to_run_waits_until_its_partition_changes(world: World) -> None:
    world.slurm.refusal = PermanentError("Invalid qos", reason="SlurmInvalidQos")
    run(world)
    await world.until(lambda: "hpk.io/Admitted" in world.conditions())
    assert world.status["phase"] == "Pending"
    (container,) = world.status["containerStatuses"]
    assert container["state"]["waiting"] == {"reason": "SlurmInvalidQos", "message": "Invalid qos"}
    await world.until(lambda: "SlurmInvalidQos" in {e["reason"] for e in world.api.events.values()})
    # It is not tried again each time that it is looked at.
    for _ in range(3):
        await world.looked()
    assert world.slurm.calls == 1
    world.slurm.refusal = None
    world.partitions["main"] = Partition(**{**MAIN.__dict__, "max_node_cpus": 8})
    world.worker.nudge()
    await world.until(lambda: world.worker.state.current is not None)
    await world.until(lambda: "hpk.io/Admitted" not in world.conditions())


async def test_the_owner_of_a_pod_that_is_not_counts_a_failure(world: World) -> None:
    world.api.pods[world.worker.ref.name]["spec"]["restartPolicy"] = "Never"
    world.slurm.refusal = PermanentError("Invalid qos", reason="SlurmInvalidQos")
    world.watched()
    run(world)
    await world.until(lambda: world.status["phase"] == "Failed")
    assert world.status["reason"] == "SlurmInvalidQos"


async def test_a_pod_that_others_say_has_failed_does_not_go_on(
    world: World, tmp_path: Path
) -> None:
    world.api.pods[world.worker.ref.name]["spec"]["terminationGracePeriodSeconds"] = 7
    world.watched()
    run(world)
    await world.until(lambda: world.worker.state.current is not None)
    world.observations.put_record(a_record(uid=PodUid("0a1b"), nonce=NONCE, job_id=JOB))
    world.see(JobState.RUNNING)
    await world.looked()
    await world.shown(world.api.change(world.worker.ref.name, phase="Failed"))
    stop = Path(world.services.paths.attempt(world.worker.ref.uid, NONCE).stop_request)
    await world.until(stop.exists)
    assert codec.loads(Stop, stop.read_bytes()) == Stop(grace_period_s=7)
    assert world.status["phase"] == "Failed"
    assert not world.api.deletions


async def test_a_pod_that_turns_up_while_it_is_taken_for_an_orphan_has_one_worker(
    world: World, tmp_path: Path
) -> None:
    pod = world.api.watched(world.worker.ref.name)

    class TurnsUp(SharedFiles):
        async def do(self, function: Any, *arguments: Any, **how: Any) -> Any:
            result = await super().do(function, *arguments, **how)
            if function is keep_pod:
                workers.pod_changed(pod)
            return result

    spawned: list[asyncio.Task[None]] = []

    def spawn(coroutine: Any) -> asyncio.Task[None]:
        spawned.append(world.services.spawn(coroutine))
        return spawned[-1]

    services = replace(world.services, files=TurnsUp(tmp_path), spawn=spawn)
    workers = PodWorkers(services, shown_changed=lambda uid: None, gone=lambda uid: None)
    ref = world.worker.ref
    private_directory(services.paths.pod_dir(ref.uid))
    record_step(services.paths, ref, Step.INTENT, nonce=NONCE)
    record_step(services.paths, ref, Step.SUBMITTED, nonce=NONCE, placement=Placement(JOB))
    workers.pods_listed([], is_same_store=False)
    keeping, orphans = spawned
    await asyncio.gather(keeping, orphans)
    worker = workers.get(ref.uid)
    assert worker is not None
    assert worker.has_object
    assert len(spawned) == 3, "what keeps, what looks for orphans, and one worker"


@pytest.mark.parametrize("is_same_store", [True, False])
async def test_a_pod_that_ended_and_was_deleted_while_nobody_looked_leaves_nothing(
    world: World, is_same_store: bool
) -> None:
    spawned: list[asyncio.Task[None]] = []

    def spawn(coroutine: Any) -> asyncio.Task[None]:
        spawned.append(world.services.spawn(coroutine))
        return spawned[-1]

    services = replace(world.services, spawn=spawn)
    workers = PodWorkers(services, shown_changed=lambda uid: None, gone=lambda uid: None)
    ref = world.worker.ref
    directory = services.paths.pod_dir(ref.uid)
    private_directory(directory)
    record_step(services.paths, ref, Step.INTENT, nonce=NONCE)
    record_step(services.paths, ref, Step.SUBMITTED, nonce=NONCE, placement=Placement(JOB))
    record_step(services.paths, ref, Step.ENDED, nonce=NONCE)
    workers.pods_listed([], is_same_store=is_same_store)
    while not all(task.done() for task in spawned):
        await asyncio.gather(*spawned)
    # A store that was restored may bring the Pod back, and the files say then that it has run.
    assert directory.exists() is not is_same_store


async def test_what_came_in_the_list_that_also_showed_our_own_write_is_news(world: World) -> None:
    run(world)
    await world.until(lambda: world.conditions().get("Initialized"))
    await world.looked()
    name = world.worker.ref.name
    changes = ({"labels": {"a": "b"}}, {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 5})
    for change in changes:
        # Somebody changes the Pod, we write its status after that, and a list shows both at once.
        world.api.pods[name]["metadata"] |= change
        world.api.change(name, {"type": "Ready", "status": "True"})
        await world.services.statuses.update(world.worker.pod, {**world.status, "hostIP": change})
        await world.shown(copy.deepcopy(world.api.pods[name]))


@pytest.mark.parametrize("finalizers", [[], ["example.com/counts"]])
async def test_the_end_of_a_deleted_pod_that_never_ran_is_told_to_whom_it_is_kept_for(
    world: World, finalizers: list[str]
) -> None:
    run(world)
    await world.until(lambda: world.worker.state.current is not None)
    world.see(JobState.PENDING)
    await world.until(lambda: world.conditions().get("Initialized"))
    await world.looked()
    patches = len(world.api.patches)
    pod = world.api.pods[world.worker.ref.name]
    pod["metadata"] |= {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 5}
    pod["metadata"]["finalizers"] = finalizers
    world.watched()
    await world.until(lambda: world.slurm.cancelled)
    world.see(JobState.CANCELLED)
    await world.until(lambda: world.api.deletions)
    assert len(world.api.patches) - patches == len(finalizers)
    assert world.status["phase"] == ("Failed" if finalizers else "Pending")


async def test_what_the_kubelet_cancelled_keeps_the_reason_it_did_it_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations_module, "FIRST_COMES_S", 0.0)
    run(world)
    await world.until(lambda: world.worker.state.current is not None)
    world.observations.put_record(a_record(uid=PodUid("0a1b"), nonce=NONCE, job_id=JOB))
    world.see(JobState.RUNNING)
    for _ in range(2):
        world.see(JobState.PENDING)
    await world.until(lambda: world.slurm.cancelled)
    # The report came first: Slurm will say nothing but that it was cancelled.
    assert world.slurm.cancelled[0][1] == ("Failed", "SlurmRequeued")
    world.see(JobState.CANCELLED)
    await world.until(lambda: world.worker.state.current and not world.worker.state.current.is_open)
    assert world.status["reason"] == "SlurmRequeued"


class Takes:
    """A Slurm that takes each job, and says nothing more."""

    async def submit(self, script: Path, *, directory: Path) -> SlurmJobId:
        return JOB

    async def kill_wait_s(self) -> int:
        return 30


@dataclass
class Breaking:
    """A pod that runs once, a real submitter, and jobs that break down."""

    world: World
    running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """A kubelet that knows what the files say."""
        if self.running is not None:
            self.running.cancel()
            await asyncio.wait([self.running])
        services = self.world.services
        submitter = Submitter(
            paths=services.paths,
            files=services.files,
            slurm=cast(Any, Takes()),
            settings=SupervisorSettings("", "", "", 1, "/tmp", ()),
            zipapp=Path("/x.pyz"),
            call=lambda uid: self.world.worker.nudge(),
        )
        pod = self.world.api.watched(self.world.worker.ref.name)
        self.world.worker = PodWorker(pod, replace(services, submitter=submitter))
        self.running = services.spawn(self.world.worker.run())

    @property
    def journal(self) -> PodJournal | None:
        return read_pod(self.world.services.paths, self.world.worker.ref.uid)

    async def submitted(self, *, after: Attempt | None = None) -> Attempt:
        """Until the pod has a job, another than that of the attempt before."""

        def found() -> Attempt | None:
            now = self.world.worker.state.current
            is_new = now is not None and (after is None or now.nonce != after.nonce)
            return now if is_new and now is not None and now.job_id is not None else None

        await self.world.until(found)
        attempt = found()
        assert attempt is not None
        return attempt

    def layout(self, attempt: Attempt) -> AttemptLayout:
        return self.world.services.paths.attempt(attempt.pod.uid, attempt.nonce)

    def break_down(self, attempt: Attempt) -> None:
        self.world.see(JobState.NODE_FAIL, nonce=attempt.nonce)
        self.world.worker.nudge()


@pytest.fixture
async def breaking(world: World, monkeypatch: pytest.MonkeyPatch) -> Breaking:
    monkeypatch.setattr(pod_worker, "_BEGIN_AGAIN_S", 0.01)
    world.api.pods[world.worker.ref.name]["spec"]["restartPolicy"] = "Never"
    made = Breaking(world)
    await made.start()
    return made


async def test_a_job_that_broke_down_before_it_began_is_followed_by_another(
    breaking: Breaking,
) -> None:
    first = await breaking.submitted()
    Path(breaking.layout(first).job_output).write_text("one\nno space\x1b[31m left\n\n")
    breaking.break_down(first)
    second = await breaking.submitted(after=first)
    assert second.again == 1
    assert not Path(breaking.layout(first).root).exists()
    await breaking.world.until(
        lambda: any(
            "submitted again" in event["message"] and "no space?[31m left" in event["message"]
            for event in breaking.world.api.events.values()
        )
    )


async def test_a_job_whose_supervisor_has_the_claim_is_followed_by_none(
    breaking: Breaking,
) -> None:
    first = await breaking.submitted()
    assert claim(breaking.layout(first).claim, "supervisor 7")
    breaking.break_down(first)
    await breaking.world.until(lambda: breaking.world.status["phase"] == "Failed")
    assert breaking.world.status["reason"] == "SlurmNodeFail"
    await breaking.world.looked()
    assert breaking.world.worker.state.attempts[0].nonce == first.nonce
    assert len(breaking.world.worker.state.attempts) == 1


async def test_what_was_revoked_and_could_not_be_written_down_is_revoked_again(
    breaking: Breaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[Step] = []

    def failing(paths: HpkPaths, pod: PodRef, step: Step, **given: Any) -> None:
        if step is Step.REVOKED and not failed:
            failed.append(step)
            raise OSError(errno.ENOSPC, "No space left on device")
        record_step(paths, pod, step, **given)

    monkeypatch.setattr(submitter_module, "record_step", failing)
    first = await breaking.submitted()
    breaking.break_down(first)
    second = await breaking.submitted(after=first)
    assert failed
    assert second.again == 1


async def test_a_pod_that_is_deleted_before_it_is_submitted_again_is_not(
    breaking: Breaking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_worker, "_BEGIN_AGAIN_S", 1000.0)
    monkeypatch.setattr(pod_worker, "_BEGIN_AGAIN_MOST_S", 1000.0)
    world = breaking.world
    first = await breaking.submitted()
    breaking.break_down(first)
    await world.until(lambda: world.worker.state.attempts and not world.worker.state.current)
    pod = world.api.watched(world.worker.ref.name)
    pod["metadata"] |= {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 5}
    world.worker.update(pod)
    await world.until(lambda: world.api.deletions)
    world.worker.object_gone(pod)
    assert breaking.running is not None
    await asyncio.wait([breaking.running], timeout=30)
    assert breaking.running.done()
    assert not world.services.paths.pod_dir(world.worker.ref.uid).exists()


async def test_how_often_a_pod_is_submitted_again_outlives_the_kubelet(
    breaking: Breaking,
) -> None:
    attempt = await breaking.submitted()
    for number in range(1, 7):
        breaking.break_down(attempt)
        attempt = await breaking.submitted(after=attempt)
        assert attempt.again == number
        await breaking.start()
        attempt = await breaking.submitted()
    assert breaking.world.status["phase"] == "Pending"


class Told:
    """A supervisor's session that keeps what it is sent."""

    def __init__(self, number: int, protocol: int = 3) -> None:
        self.number, self.protocol = number, protocol
        self.bundle_stale = asyncio.Event()
        self.sent: list[Any] = []

    async def send(self, frame: Any) -> None:
        self.sent.append(frame)


async def runs(world: World, session: Any) -> None:
    """The Pod runs, and this session tells of it."""
    run(world)
    await world.until(lambda: world.worker.state.current is not None)
    world.sessions.append(session)
    world.see(JobState.RUNNING)
    world.observations.put_record(a_record(uid=PodUid("0a1b"), nonce=NONCE, job_id=JOB))
    await world.looked()


def with_spec(world: World, **fields: Any) -> dict[str, Any]:
    """The Pod, its spec changed by somebody."""
    name = world.worker.ref.name
    world.api.pods[name]["spec"] |= fields
    return world.api.change(name, {"type": "Changed", "status": str(sorted(fields.items()))})


def ephemeral(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "image": "busybox", "command": ["sh"], **fields}


async def test_a_changed_deadline_is_told_once_in_each_session(world: World) -> None:
    first = Told(1)
    await runs(world, first)
    assert first.sent == []
    await world.shown(with_spec(world, activeDeadlineSeconds=5))
    for _ in range(3):
        await world.looked()
    assert first.sent == [PodUpdate(5)]
    assert not first.bundle_stale.is_set()
    second = Told(2)
    world.sessions.append(second)
    await world.looked()
    assert second.sent == [PodUpdate(5)]


async def test_an_end_is_acknowledged_as_kept_once_it_is_in_the_api_server(world: World) -> None:
    first = Told(1)
    await runs(world, first)
    ended = a_record(
        uid=PodUid("0a1b"),
        nonce=NONCE,
        job_id=JOB,
        seq=9,
        phase=PodPhase.FINISHED,
        stop_cause=StopCause.COMPLETED,
    )
    world.api.hold.clear()
    world.observations.put_record(ended)
    world.worker.nudge()
    await world.until(lambda: world.api.held)
    assert first.sent == []
    world.api.hold.set()
    await world.until(lambda: first.sent == [StatusAck(9)])
    assert world.status["phase"] in ("Succeeded", "Failed")
    second = Told(2)
    world.sessions.append(second)
    await world.looked()
    assert second.sent == [StatusAck(9)]
    assert first.sent == [StatusAck(9)]


async def test_a_container_that_is_added_is_planned_with_its_image_and_told(world: World) -> None:
    session = Told(1)
    await runs(world, session)
    await world.shown(with_spec(world, ephemeralContainers=[ephemeral("one")]))
    await world.until(lambda: session.sent)
    (update,) = session.sent
    (plan,) = update.ephemeral_containers
    assert (plan.name, plan.argv, plan.image) == ("one", ("sh",), IMAGE)
    assert session.bundle_stale.is_set(), "its variables are part of the bundle"
    attempt = world.worker.state.current
    assert attempt is not None
    planned = await world.worker.state.plan(attempt)
    assert planned is not None and planned.ephemeral_containers == (plan,)
    await world.shown(with_spec(world, ephemeralContainers=[ephemeral("one"), ephemeral("two")]))
    await world.until(lambda: len(session.sent) == 2)
    assert [c.name for c in session.sent[1].ephemeral_containers] == ["one", "two"]


@pytest.mark.parametrize(
    ("protocol", "fields", "reason", "part"),
    [
        (3, {"resources": {"limits": {"cpu": "1"}}}, "UnsupportedField", "[0].resources"),
        (3, {"volumeMounts": [{"name": "no", "mountPath": "/x"}]}, "InvalidField", "no volume"),
        (2, {}, "UnsupportedField", "older hpk"),
    ],
)
async def test_a_container_that_cannot_be_added_is_refused_alone(
    world: World, protocol: int, fields: dict[str, Any], reason: str, part: str
) -> None:
    session = Told(1, protocol)
    await runs(world, session)
    await world.shown(with_spec(world, ephemeralContainers=[ephemeral("one", **fields)]))
    await world.until(lambda: world.status.get("ephemeralContainerStatuses"))

    def refused() -> Any:
        (status,) = world.status["ephemeralContainerStatuses"]
        return status["state"].get("terminated")

    world.worker.nudge()
    await world.until(refused)
    assert (refused()["reason"], part in refused()["message"]) == (reason, True)
    assert world.status["phase"] != "Failed"
    assert session.sent == []
