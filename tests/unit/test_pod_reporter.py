"""What is told of one pod, and what is not told again by a kubelet that was started anew."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from hpk.journal import Attempt
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.job import JobObservation, JobState
from hpk.model.placement import Placement
from kubelet.api.apiserver import ApiServer
from kubelet.evidence.observations import Observation
from kubelet.pods.actions import PodView
from kubelet.pods.pod_reporter import PodReporter
from kubelet.pods.pod_state import PodState
from kubelet.pods.queue_news import QueueNews
from kubelet.status.events import EventRecorder
from kubelet.status.pod_status import queue_waiting
from kubelet.status.status_manager import StatusManager
from tests.pod_api import PodApi, serve_pods


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[PodApi, ApiServer]]:
    async with serve_pods(tmp_path) as answer:
        yield answer


def queued(reason: str) -> PodView:
    job = JobObservation(
        job_id=SlurmJobId(7),
        name="default/web@n",
        state=JobState.PENDING,
        reason=reason,
        nodes="",
        exit_code=None,
        signal=0,
        start_time_s=None,
        end_time_s=None,
        source="squeue",
        command="",
    )
    attempt = Attempt(
        pod=PodRef("default", "web", PodUid("uid-of-web")),
        nonce=Nonce("0123456789abcdef"),
        intent_at_s=1.0,
        placement=Placement(SlurmJobId(7)),
    )
    return PodView(
        has_object=True,
        is_over=False,
        deletion=None,
        deletion_journalled=False,
        attempt=attempt,
        seen=Observation(job=job),
        outcome=None,
        cancelled_at_s=None,
        now_s=1.0,
    )


async def test_why_a_pod_waits_is_told_once_though_the_kubelet_is_another(
    served: tuple[PodApi, ApiServer],
) -> None:
    pods, api = served
    pods.add("web", {"phase": "Pending"})
    for reasons in (["JobHeldUser"], ["JobHeldUser", "Resources"]):
        events = EventRecorder(api)
        reporter = PodReporter(
            statuses=StatusManager(api), events=events, state=cast(PodState, None)
        )
        writing = asyncio.ensure_future(events.run())
        for reason in reasons:
            await reporter.report(pods.watched("web"), queued(reason))
        events.normal(pods.watched("web"), "Marker", f"after {reasons[-1]}")
        async with asyncio.timeout(60):
            while f"after {reasons[-1]}" not in {e["message"] for e in pods.events.values()}:
                await asyncio.sleep(0.01)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
    told = {e["message"] for e in pods.events.values() if e["reason"] != "Marker"}
    assert told == {"Slurm job 7 is queued: JobHeldUser", "Slurm job 7 is queued: Resources"}
    assert pods.event_writes == 4, "these and the markers, each once"


async def test_a_submission_and_slurms_first_word_are_one_event(
    served: tuple[PodApi, ApiServer],
) -> None:
    pods, api = served
    pods.add("web", {"phase": "Pending"})
    events = EventRecorder(api)
    reporter = PodReporter(statuses=StatusManager(api), events=events, state=cast(PodState, None))
    view = queued("JobHeldUser")
    assert view.attempt is not None
    reporter.submitted(view.attempt, "main")
    writing = asyncio.ensure_future(events.run())
    for reason in ("JobHeldUser", "Resources"):
        await reporter.report(pods.watched("web"), queued(reason))
    async with asyncio.timeout(60):
        while len(pods.events) < 2:
            await asyncio.sleep(0.01)
    writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    assert {(e["reason"], e["message"]) for e in pods.events.values()} == {
        (
            "SlurmJobSubmitted",
            "Submitted as Slurm job 7 to partition main; Slurm job 7 is queued: JobHeldUser",
        ),
        ("SlurmJobPending", "Slurm job 7 is queued: Resources"),
    }


def test_another_expected_start_is_news_where_it_is_much_later_or_earlier() -> None:
    def expected(start_s: float | None) -> JobObservation | None:
        job = queued("Resources").seen.job
        return None if job is None else dataclasses.replace(job, start_time_s=start_s)

    pod: dict[str, Any] = {"metadata": {}}
    news = QueueNews()
    assert news.is_new_reason(pod, expected(None), queue_waiting(expected(None)))
    assert not news.is_new_start(expected(None), 0)
    assert news.is_new_start(expected(10_000), 0), "it was not known before"
    assert not news.is_new_start(expected(12_000), 0), "a fifth of the wait later"
    assert news.is_new_start(expected(13_000), 0)
    assert not news.is_new_start(expected(12_500), 12_500), "less than ten minutes"
    assert news.is_new_start(expected(9_000), 0)
    assert not news.is_new_start(None, 0)
    assert not news.is_new_reason(pod, expected(9_000), queue_waiting(expected(9_000)))
