"""What the kubelet refuses to stream before it asks a supervisor, and what it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpk.journal import Attempt
from hpk.model.frames import AttachOpen, DialOpen, ExecOpen, StreamClosed, TerminalSize
from hpk.model.ids import Nonce, PodRef, PodUid
from hpk.model.record import ContainerPhase, ContainerRecord, ContainerState, PodPhase
from kubelet.evidence.observations import Observations
from kubelet.pod_streams import PodStreamBackend
from kubelet.server.streams import RemoteStream, StreamRefusedError, Streams
from tests.records import a_record
from tests.stream_world import NONCE, UID, World, connected

POD = PodRef("default", "web", UID)
ALL = Streams(stdin=True, stdout=True, stderr=True, tty=False)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with connected(tmp_path) as made:
        yield made


def a_container(name: str, phase: ContainerPhase) -> ContainerRecord:
    return ContainerRecord(
        name=name,
        state=ContainerState(phase=phase),
        last_state=None,
        restart_count=0,
        container_id="",
        log_path="",
    )


def a_backend(
    world: World | None, phase: PodPhase = PodPhase.RUNNING
) -> tuple[PodStreamBackend, Observations]:
    attempt = Attempt(pod=POD, nonce=NONCE, intent_at_s=1.0)
    observations = Observations(lambda uid: None)
    observations.put_record(
        a_record(
            uid=UID,
            nonce=NONCE,
            phase=phase,
            containers=tuple(a_container(phase.value, phase) for phase in ContainerPhase),
            init_containers=(a_container("sidecar", ContainerPhase.RUNNING),),
        )
    )
    backend = PodStreamBackend(
        observations=observations,
        attempt=lambda uid: attempt if uid == UID else None,
        session=lambda nonce: world.server.session(nonce) if world and nonce == NONCE else None,
    )
    return backend, observations


async def answered(world: World, opening: Any) -> tuple[Any, RemoteStream]:
    """The frame that the supervisor gets, and the stream that comes of it."""
    task = asyncio.ensure_future(opening)
    frame = await world.pod.take()
    world.pod.channel.streams.carry(frame.id, outputs={}, inputs={})
    world.pod.channel.streams.finish(StreamClosed(frame.id))
    return frame, await task


@pytest.mark.parametrize("container", ["running", "sidecar"])
async def test_what_is_asked_reaches_the_supervisor(world: World, container: str) -> None:
    backend, _ = a_backend(world)
    size = TerminalSize(80, 25)
    command = ("sh", "-c", "echo 'a b'")
    frame, stream = await answered(world, backend.open_exec(UID, container, command, ALL, size))
    assert frame == ExecOpen(
        frame.id, container, command, stdin=True, stdout=True, stderr=True, tty=False, size=size
    )
    assert (await stream.closed()).exit_code is None
    frame, _ = await answered(world, backend.open_attach(UID, container, ALL, None))
    assert frame == AttachOpen(frame.id, container, stdin=True, stdout=True, stderr=True)
    frame, _ = await answered(world, backend.open_dial(UID, 8080))
    assert frame == DialOpen(frame.id, 8080)


@pytest.mark.parametrize("container", ["waiting", "terminated", "absent"])
async def test_a_container_that_does_not_run_is_refused_in_upstreams_words(
    world: World, container: str
) -> None:
    backend, _ = a_backend(world)
    with pytest.raises(StreamRefusedError, match=rf'^container not found \("{container}"\)$'):
        await backend.open_exec(UID, container, ("true",), ALL, None)
    words = rf"^container {container} not found in pod web_default$"
    with pytest.raises(StreamRefusedError, match=words):
        await backend.open_attach(UID, container, ALL, None)


async def test_a_pod_that_does_not_run_is_refused_in_upstreams_words(world: World) -> None:
    backend, observations = a_backend(world, PodPhase.FINISHED)
    with pytest.raises(StreamRefusedError, match=r'^pod not found \("web_default"\)$'):
        await backend.open_dial(UID, 80)
    observations.forget(NONCE)
    with pytest.raises(StreamRefusedError, match=r'^pod not found \("web_default"\)$'):
        await backend.open_dial(UID, 80)
    with pytest.raises(StreamRefusedError, match=r'^container not found \("running"\)$'):
        await backend.open_exec(UID, "running", ("true",), ALL, None)
    with pytest.raises(StreamRefusedError, match="not found"):
        await backend.open_exec(PodUid("another"), "running", ("true",), ALL, None)


async def test_a_supervisor_that_is_not_there_is_not_waited_for() -> None:
    backend, _ = a_backend(None)
    with pytest.raises(StreamRefusedError, match="not connected"):
        await backend.open_dial(UID, 80)


async def test_where_no_connection_leads_either_way_it_says_so() -> None:
    backend, observations = a_backend(None)
    record = observations.get(NONCE).record
    assert record is not None
    observations.put_record(replace(record, seq=record.seq + 1, channel_port=4711))
    with pytest.raises(StreamRefusedError, match=r"no connection leads .*:4711 .* logs are seen"):
        await backend.open_dial(UID, 80)


async def test_no_other_pods_session_is_asked(world: World) -> None:
    assert world.server.session(Nonce("f" * 16)) is None
