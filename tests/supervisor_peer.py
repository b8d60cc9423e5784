"""The kubelet's end of the channel, for tests of the supervisor: real frames over real TLS."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpk.model import codec, frames
from hpk.model.bundle import Bundle, BundleFile, BundleVolume
from hpk.model.ids import Nonce, PodRef, PodUid
from hpk.model.layout import AttemptLayout
from hpk.model.log_frames import LogBytes, is_log_frame, parse_log_frame
from hpk.model.plan import (
    ContainerPlan,
    EnvVar,
    ImageConfig,
    ImagePlan,
    JobSpec,
    PodPlan,
    RestartPolicy,
    SupervisorSettings,
)
from hpk.model.record import PodPhase, SupervisorRecord
from hpk.model.resources import ContainerResources
from hpk.model.settings import Endpoint
from hpk.model.stream_frames import (
    StreamFrame,
    is_stream_frame,
    parse_stream_frame,
    stream_frame_bytes,
)
from tests.certificates import make_certificates
from tests.peer_streams import PeerStreams

TOKEN = "0123456789abcdef0123456789abcdef"


class Peer:
    """A kubelet that knows one attempt."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        self.directory = directory
        self.ca, certificate, key = make_certificates(directory)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self.bundle = Bundle((), ())
        self.give_bundle = True
        self.ack = True
        self.keep = True
        """Whether what is acknowledged is kept, too."""
        self.reject: frames.Reject | None = None
        self.hellos: list[frames.Hello] = []
        self.records: list[SupervisorRecord] = []
        self.log_data: dict[int, list[LogBytes]] = {}
        self.log_errors: dict[int, str] = {}
        self.streams = PeerStreams(self)
        self._condition = threading.Condition()
        self._connection: ssl.SSLSocket | None = None
        self._ssl_lock = threading.Lock()
        self.address = address
        self._listener = socket.create_server((address, 0))
        self._closed = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._generation = 0
        self.publish()

    @property
    def endpoint(self) -> Path:
        return self.directory / "endpoint.json"

    def publish(self) -> None:
        self._generation += 1
        endpoint = Endpoint(
            generation=self._generation,
            host="here",
            address=self.address,
            pid=1,
            job_id=None,
            api_port=1,
            channel_port=self._listener.getsockname()[1],
            started_at_s=time.time(),
        )
        self.endpoint.write_text(codec.dumps(endpoint))

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(10)

    def drop(self) -> None:
        """Cut the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(plain,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, EOFError),
            plain,
            self._context.wrap_socket(plain, server_side=True) as connection,
        ):
            while True:
                size = int.from_bytes(self._read(connection, 4), "big")
                payload = self._read(connection, size)
                if is_log_frame(payload):
                    self._take(connection, parse_log_frame(payload))
                elif is_stream_frame(payload):
                    with self._condition:
                        self.streams.take(parse_stream_frame(payload))
                        self._condition.notify_all()
                else:
                    self._take(connection, codec.parse_frame(payload))

    def _read(self, connection: ssl.SSLSocket, count: int) -> bytes:
        """OpenSSL's connections are one thread's at a time."""
        data = b""
        while len(data) < count:
            if not connection.pending():
                select.select([connection], [], [])
            with self._ssl_lock:
                chunk = connection.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _take(self, connection: ssl.SSLSocket, frame: Any) -> None:
        with self._condition:
            if isinstance(frame, frames.Hello):
                self.hellos.append(frame)
                if self.reject is not None or frame.token != TOKEN:
                    reject = self.reject or frames.Reject("wrong token", False)
                    with self._ssl_lock:
                        connection.sendall(codec.frame_bytes(reject))
                    raise EOFError
                self._connection = connection
                self._send(frames.Welcome(protocol=1))
            elif isinstance(frame, frames.Status):
                self.records.append(frame.record)
                if self.ack:
                    self._send(frames.StatusAck(frame.record.seq, kept=self.keep))
            elif isinstance(frame, frames.BundleRequest) and self.give_bundle:
                self._send(frames.BundleReply(frame.id, self.bundle))
            elif isinstance(frame, frames.StreamOpened):
                self.streams.opened(frame)
            elif isinstance(frame, frames.StreamClosed):
                self.streams.closed(frame)
            elif isinstance(frame, frames.LogData):
                self.log_errors[frame.id] = frame.error
            elif isinstance(frame, LogBytes):
                self.log_data.setdefault(frame.id, []).append(frame)
            self._condition.notify_all()

    def _send(self, frame: Any) -> None:
        self._send_bytes(codec.frame_bytes(frame))

    def _send_bytes(self, data: bytes) -> None:
        with self._ssl_lock:
            if self._connection is not None:
                with contextlib.suppress(OSError):
                    self._connection.sendall(data)

    def send(self, frame: Any) -> None:
        self._send(frame)

    def send_stream(self, frame: StreamFrame) -> None:
        self._send_bytes(stream_frame_bytes(frame))

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        with self._condition:
            if not self._condition.wait_for(condition, timeout_s):
                raise TimeoutError(f"last record: {self.records[-1:]}")

    def wait_record(self, condition: Callable[[SupervisorRecord], bool]) -> SupervisorRecord:
        self.wait(lambda: any(condition(record) for record in self.records))
        return next(record for record in self.records if condition(record))

    def wait_running(self) -> SupervisorRecord:
        return self.wait_record(lambda record: record.phase is PodPhase.RUNNING)

    def wait_finished(self) -> SupervisorRecord:
        return self.wait_record(lambda record: record.phase is PodPhase.FINISHED)

    def read_log(self, read_id: int, path: str, offset: int = 0, *, wait: bool) -> bytes:
        """The whole log up to its end (wait) or to what there is now."""
        data = b""
        while True:
            self.send(frames.LogRead(read_id, path, offset + len(data), wait))
            self.wait(lambda: bool(self.log_data.get(read_id)) or read_id in self.log_errors)
            if read_id in self.log_errors:
                raise OSError(self.log_errors.pop(read_id))
            answer = self.log_data.pop(read_id)[0]
            data += answer.data
            if answer.eof or (not wait and not answer.data):
                return data


def container(argv: tuple[str, ...], image: str, **changes: Any) -> ContainerPlan:
    plan = ContainerPlan(
        name="main",
        image=ImagePlan(
            reference="busybox",
            image_id="busybox@sha256:0",
            path=image,
            config=ImageConfig(),
            passwd="root:x:0:0:root:/root:/bin/sh\n",
            group="root:x:0:\n",
        ),
        argv=argv,
        env=(),
        working_dir="",
        uid=0,
        gid=0,
        mounts=(),
        resources=ContainerResources(),
        termination_message_path="/dev/termination-log",
        termination_message_policy="File",
    )
    return replace(plan, **changes)


def write_attempt(
    root: Path, peer: Peer | None, *containers: ContainerPlan, **changes: Any
) -> AttemptLayout:
    """An attempt's directory as the kubelet leaves it; ``changes`` are fields of PodPlan or of
    SupervisorSettings."""
    root.mkdir(mode=0o700, parents=True)
    base = peer.directory if peer else root
    settings: dict[str, Any] = {
        "endpoint_path": str(base / "endpoint.json"),
        "channel_ca_path": str(base / "ca.crt"),
        "heartbeat_path": str(base / "heartbeat"),
        "orphan_timeout_s": 600,
        "local_root": str(root),
        "runtime_path": (),
        "own_directories": (),
    }
    settings.update({name: changes.pop(name) for name in tuple(changes) if name in settings})
    plan = PodPlan(
        pod=PodRef("default", "p", PodUid("0a-uid")),
        partition="main",
        options=(),
        containers=containers,
        volumes=(),
        restart_policy=RestartPolicy.NEVER,
        grace_period_s=30,
        active_deadline_s=None,
        runtime="apptainer",
    )
    spec = JobSpec(
        plan=replace(plan, **changes),
        nonce=Nonce("0123456789abcdef"),
        settings=SupervisorSettings(**settings),
    )
    layout = AttemptLayout(str(root))
    Path(layout.spec).write_text(codec.dumps(spec))
    Path(layout.token).write_text(TOKEN)
    Path(layout.token).chmod(0o600)
    return layout


def read_record(layout: AttemptLayout) -> SupervisorRecord:
    return codec.loads(SupervisorRecord, Path(layout.record).read_text())


def volume(name: str, **files: str) -> BundleVolume:
    return BundleVolume(
        name,
        tuple(
            BundleFile(path, base64.b64encode(text.encode()).decode(), 0o644)
            for path, text in files.items()
        ),
    )


def env(**values: str) -> tuple[EnvVar, ...]:
    return tuple(EnvVar(name, value) for name, value in values.items())


def log_texts(data: bytes, stream: str = "stdout") -> bytes:
    """What the container wrote, from its CRI log."""
    out = []
    for line in data.split(b"\n")[:-1]:
        _, name, tag, text = line.split(b" ", 3)
        if name.decode() == stream:
            out.append(text + b"\n" if tag == b"F" else text)
    return b"".join(out)
