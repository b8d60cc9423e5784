"""Events of a pod's containers: each once, in upstream's words."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState, PodPhase
from kubelet.pods.container_events import ContainerEvents
from kubelet.status.events import EventRecorder
from tests.pod_api import PodApi, serve_pods
from tests.records import a_record

RUNNING = ContainerState(phase=ContainerPhase.RUNNING, started_at_s=5.0)
BACKS_OFF = ContainerState(phase=ContainerPhase.WAITING, reason="CrashLoopBackOff")
NO_PROGRAM = ContainerState(
    phase=ContainerPhase.TERMINATED,
    reason="StartError",
    message='failed to start container "main": no such file',
    exit_code=128,
)
FAILED = ContainerState(
    phase=ContainerPhase.TERMINATED, reason="Error", exit_code=1, started_at_s=1.0
)


def main_container(state: ContainerState, container_id: str, **changes: Any) -> ContainerRecord:
    fields: dict[str, Any] = {"restart_count": 0, "log_path": "", "last_state": None} | changes
    return ContainerRecord(name="main", state=state, container_id=container_id, **fields)


async def told(tmp_path: Path, status: dict[str, Any], *records: ContainerRecord) -> PodApi:
    """What the API server has heard when a kubelet has seen these records, one after the other."""
    async with serve_pods(tmp_path) as (pods, api):
        pod = pods.add("web", status)
        recorder = EventRecorder(api)
        events = ContainerEvents(recorder)
        for container in records:
            events.report(pod, a_record(containers=(container,)))
        events.stopping(pod)
        recorder.warning(pod, "Marker", "the last")
        writing = asyncio.ensure_future(recorder.run())
        async with asyncio.timeout(60):
            # Minor ones come last of all.
            while not {"Marker", *(["Created"] if records else [])} <= reasons(pods).keys():
                await asyncio.sleep(0.01)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        return pods


def reasons(pods: PodApi) -> dict[str, dict[str, Any]]:
    return {event["reason"]: event for event in pods.events.values()}


async def test_a_start_is_told_once_and_a_later_one_counted(tmp_path: Path) -> None:
    first, second = main_container(RUNNING, "c-0"), main_container(RUNNING, "c-1")
    found = reasons(await told(tmp_path, {}, first, first, second))
    assert found["Started"]["message"] == "Container started"
    assert found["Created"]["message"] == "Container created"
    assert found["Started"]["count"] == found["Created"]["count"] == 2
    assert found["Started"]["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert "Killing" not in found


async def test_a_container_that_ended_between_two_records_was_started(tmp_path: Path) -> None:
    backs_off = main_container(BACKS_OFF, "c-0", last_state=FAILED, last_container_id="c-0")
    found = reasons(await told(tmp_path, {}, backs_off, backs_off))
    assert found["Started"]["count"] == found["BackOff"]["count"] == 1
    assert (
        "Back-off restarting failed container main in pod web_default("
        in (found["BackOff"]["message"])
    )


async def test_a_program_that_is_missing_is_an_event(tmp_path: Path) -> None:
    found = reasons(await told(tmp_path, {}, main_container(NO_PROGRAM, "c-0")))
    assert found["Failed"]["message"] == ('Error: failed to start container "main": no such file')
    assert found["Failed"]["type"] == "Warning"
    assert "Started" not in found


async def test_what_an_earlier_kubelet_has_told_is_not_told_again(tmp_path: Path) -> None:
    status = {
        "containerStatuses": [
            {"name": "main", "state": {"running": {}}, "containerID": "apptainer://c-1"}
        ]
    }
    found = reasons(
        await told(
            tmp_path,
            status,
            main_container(RUNNING, "c-1"),
            main_container(RUNNING, "c-2"),
        )
    )
    assert found["Started"]["count"] == 1
    assert found["Killing"]["message"] == "Stopping container main"


async def test_a_pod_that_nobody_asked_to_stop_says_that_its_containers_are_stopped_once(
    tmp_path: Path,
) -> None:
    async with serve_pods(tmp_path) as (pods, api):
        status = {"containerStatuses": [{"name": "main", "state": {"running": {}}}]}
        pod = pods.add("web", status)
        recorder = EventRecorder(api)
        events = ContainerEvents(recorder)
        running = (main_container(RUNNING, "c-0"),)
        for _ in range(2):
            events.report(pod, a_record(phase=PodPhase.STOPPING, containers=running))
            events.stopping(pod)
        writing = asyncio.ensure_future(recorder.run())
        async with asyncio.timeout(60):
            while "Created" not in reasons(pods):
                await asyncio.sleep(0.01)
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
    assert reasons(pods)["Killing"]["message"] == "Stopping container main"
    assert reasons(pods)["Killing"]["count"] == 1
