"""Which container the kubelet has signalled: a real session's bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hpk.journal import Attempt
from hpk.model import codec
from hpk.model.errors import PermanentError, TransientError
from hpk.model.frames import PROTOCOL_VERSION, Hello, SignalContainer
from hpk.model.ids import Nonce, PodRef, PodUid, SlurmJobId
from hpk.model.record import (
    ContainerPhase,
    ContainerRecord,
    ContainerState,
)
from hpk.statefs import HpkPaths
from kubelet.api.apiserver import ApiServer
from kubelet.evidence.observations import Observations
from kubelet.link.session import Session
from kubelet.server.backend import ContainerNotFoundError
from kubelet.shared_files import SharedFiles
from kubelet.view import ServerBackend
from tests.records import a_record

POD = PodRef("default", "web", PodUid("0a1b"))
NONCE = Nonce("0" * 16)


def a_container(name: str, phase: ContainerPhase) -> ContainerRecord:
    return ContainerRecord(
        name=name,
        state=ContainerState(phase=phase),
        last_state=None,
        restart_count=0,
        container_id="",
        log_path="",
    )


class Kubelet:
    """A backend, and the supervisor's end of the one session it may have."""

    def __init__(self, directory: Path, reader: asyncio.StreamReader) -> None:
        paths = HpkPaths(home=directory / "home", cache=directory / "cache")
        attempt = Attempt(pod=POD, nonce=NONCE, intent_at_s=1.0)
        self.reader = reader
        self.session: Session | None = None
        self.observations = Observations(lambda uid: None)
        self.observations.put_record(
            a_record(
                uid=POD.uid,
                nonce=NONCE,
                containers=tuple(a_container(phase.value, phase) for phase in ContainerPhase),
                init_containers=(a_container("sidecar", ContainerPhase.RUNNING),),
            )
        )
        self.backend = ServerBackend(
            api=ApiServer.__new__(ApiServer),  # is not asked for a signal
            paths=paths,
            observations=self.observations,
            all_pods=lambda: [],
            find_pod=lambda namespace, name: None,
            attempt=lambda uid: attempt if uid == POD.uid else None,
            files=SharedFiles(directory),
            nodes=lambda: (),
            session=lambda nonce: self.session if nonce == NONCE else None,
            problem=lambda: "",
            numbers=lambda: {"hpk_pods": 3},
        )


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    ours, theirs = socket.socketpair()
    reader, their_writer = await asyncio.open_connection(sock=theirs)
    _, writer = await asyncio.open_connection(sock=ours)
    made = Kubelet(tmp_path, reader)
    made.session = a_session(writer, PROTOCOL_VERSION)
    sending = asyncio.ensure_future(made.session.keep_sending())
    yield made
    sending.cancel()
    for each in (writer, their_writer):
        each.close()
        await each.wait_closed()


def a_session(writer: asyncio.StreamWriter, protocol: int) -> Session:
    hello = Hello(protocol=protocol, uid=POD.uid, nonce=NONCE, job_id=SlurmJobId(1), token="")
    return Session(hello, writer)


@pytest.mark.parametrize("name", ["running", "sidecar"])
async def test_a_running_container_is_signalled(kubelet: Kubelet, name: str) -> None:
    assert kubelet.backend.is_running(POD.uid, name)
    await kubelet.backend.signal_container(POD.uid, name, 15, not_before_s=20)
    length = int.from_bytes(await kubelet.reader.readexactly(4), "big")
    frame = codec.parse_frame(await kubelet.reader.readexactly(length))
    assert frame == SignalContainer(container=name, number=15, not_before_s=20)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        (POD.uid, "waiting"),
        (POD.uid, "terminated"),
        (POD.uid, "absent"),
        (PodUid("0a1c"), "running"),
    ],
)
async def test_what_does_not_run_is_not_signalled(kubelet: Kubelet, uid: PodUid, name: str) -> None:
    assert not kubelet.backend.is_running(uid, name)
    with pytest.raises(ContainerNotFoundError, match=f'^container not found \\("{name}"\\)$'):
        await kubelet.backend.signal_container(uid, name, 15, not_before_s=0)


async def test_a_supervisor_that_knows_no_signals_is_not_taken_for_one_that_does(
    kubelet: Kubelet,
) -> None:
    assert kubelet.session is not None
    kubelet.session.protocol = 1
    with pytest.raises(PermanentError, match="older hpk"):
        await kubelet.backend.signal_container(POD.uid, "running", 15, not_before_s=0)


async def test_a_supervisor_that_is_not_there_cannot_signal(kubelet: Kubelet) -> None:
    kubelet.session = None
    with pytest.raises(TransientError, match="not connected"):
        await kubelet.backend.signal_container(POD.uid, "running", 15, not_before_s=0)


async def test_what_is_left_of_the_descriptors_is_told(kubelet: Kubelet) -> None:
    told = kubelet.backend.metrics()
    assert 0 < told["process_open_fds"] < told["process_max_fds"]
    assert told["process_resident_memory_bytes"] > 1024 * 1024
    assert told["hpk_pods"] == 3
