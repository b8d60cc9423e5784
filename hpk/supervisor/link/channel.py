"""The channel to the kubelet: TLS, kept up by one thread.

Whatever the kubelet says becomes an event of the supervisor's loop; log reads are answered here.
The kubelet may vanish and return elsewhere at any time: nothing of the pod waits for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from functools import partial
from typing import Any, Callable, Optional

from hpk.durable import read_file
from hpk.model import codec, frames
from hpk.model.errors import HpkError, ParseError
from hpk.model.frozen import dataclass
from hpk.model.ids import SlurmJobId
from hpk.model.log_frames import LogBytes, log_frame_bytes
from hpk.model.plan import JobSpec
from hpk.model.record import SupervisorRecord
from hpk.supervisor.base.job_log import log
from hpk.supervisor.base.shared_files import SharedFiles
from hpk.supervisor.base.streams import HangUp
from hpk.supervisor.link.connection import Connection
from hpk.supervisor.link.control_plane import ControlPlane
from hpk.supervisor.link.meeting import Meeting
from hpk.supervisor.link.redial import compute_pause_s
from hpk.supervisor.link.streams import Streams

_STEADY_S = 5.0
"""How long a connection must have lasted for its loss to be the first."""
_READ_S = 10.0
_FOR_THE_POD = (frames.BundleReply, frames.Stop, frames.SignalContainer, frames.PodUpdate)
_LOG_ANSWERS = 4
"""As many are made before they can be sent."""


@dataclass(frozen=True)
class ChannelConfig:
    """Who we are and where to look for the kubelet.

    :param log_end: path to the offset up to which a log can be read by now, beyond all offsets
        where no more will come; from memory.
    :param read_log: (path, offset, limit) to (true offset, bytes, whether nothing follows them);
        raises ParseError for a path that is no log of this pod.
    :param on_frame: takes Welcome, Reject, BundleReply, Stop and what streams are asked for; called
        from the channel's thread.
    :param post: has something done in the loop; called from any thread.
    :param on_hang_up: called in the loop.
    :param on_port: called in the loop: `port` is another now.
    """

    spec: JobSpec
    job_id: SlurmJobId
    token_path: str
    control_plane: ControlPlane
    files: SharedFiles
    log_end: Callable[[str], int]
    read_log: Callable[[str, int, int], tuple[int, bytes, bool]]
    on_frame: Callable[[Any], None]
    post: Callable[[Callable[[], None]], None]
    on_hang_up: HangUp
    on_port: Callable[[], None]


class Channel:
    """The thread and what others may ask of it, from any thread."""

    def __init__(self, config: ChannelConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._outgoing: deque[Any] = deque()
        self._answers: deque[bytes] = deque()
        self._record: Optional[SupervisorRecord] = None
        self._reads: dict[int, frames.LogRead] = {}  # the channel's thread's alone
        self._returned: list[frames.LogRead] = []
        self._being_read = 0
        self._session = 0
        self._token = ""
        self._is_reached = False
        self._meeting = Meeting(
            config.control_plane, config.files, config.spec.settings.channel_ca_path
        )
        self._closing = False
        self.wake_fd, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.streams = Streams(self.wake, config.post, config.on_hang_up)
        self.is_welcome = False
        self.acked_seq = 0
        self.kept_seq = 0
        self.host_address = ""
        self._thread = threading.Thread(target=self._run, name="channel", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def publish(self, record: SupervisorRecord) -> None:
        """Tell the kubelet; now, and whenever it is new. What it has heard already is no news."""
        with self._lock:
            if self._record is not None and record.seq <= self._record.seq:
                return
            self._record = record
            if self.is_welcome:
                self._outgoing.append(frames.Status(record))
        self.wake()

    def send(self, frame: Any) -> None:
        """Send a frame on the connection there is; without one it is dropped."""
        with self._lock:
            if self.is_welcome:
                self._outgoing.append(frame)
        self.wake()

    def wake(self) -> None:
        """Have the thread look again: a log has grown."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for an answer of ours."""
        if not self.is_welcome:
            return True
        waiting = (
            self._reads or self._returned or self._being_read or self._answers or self._outgoing
        )
        return not waiting and self.streams.is_idle

    @property
    def port(self) -> int:
        """Where the kubelet may dial this node; 0 where it need not. From any thread."""
        return self._meeting.port

    def close(self, timeout_s: float) -> None:
        """End the connection and the thread."""
        self._closing = True
        self.wake()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        import ssl  # here, so that its cost is paid beside the start of the container

        away_since_s, failure = time.monotonic(), ""
        while not self._closing:
            started_s, self._is_reached = time.monotonic(), False
            try:
                self._connect_and_serve(ssl)
            except (OSError, HpkError, ValueError, OverflowError) as error:
                text = str(error) or repr(error)
                if text != failure:
                    log("channel: cannot reach the kubelet", error=text)
                failure = text
            if self.is_welcome:
                failure = ""
            elif not self._is_reached and self._meeting.missed():
                self._config.post(self._config.on_port)
            with self._lock:
                was_welcome, self.is_welcome = self.is_welcome, False
                self._session += 1
                self._being_read = 0
                self._outgoing.clear()
                self._answers.clear()
                self._reads.clear()
                self._returned.clear()
            now_s = time.monotonic()
            if was_welcome and now_s - started_s > _STEADY_S:
                away_since_s = now_s
            self._pause(compute_pause_s(now_s - away_since_s, os.urandom(1)[0] / 255))

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._closing and time.monotonic() < deadline and not self._meeting.was_dialled:
            self._meeting.wait(deadline - time.monotonic(), self.wake_fd)
            self._drain_wake()

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_fd, 4096):
                pass

    def _connect_and_serve(self, ssl: Any) -> None:
        token = self._read_token()
        with self._meeting.connect(ssl) as sock:
            self._is_reached = True
            self.host_address = sock.getsockname()[0]
            sock.setblocking(False)
            hello = frames.Hello(
                protocol=frames.PROTOCOL_VERSION,
                uid=self._config.spec.plan.pod.uid,
                nonce=self._config.spec.nonce,
                job_id=self._config.job_id,
                token=token,
            )
            Connection(self, sock, ssl).serve(codec.frame_bytes(hello))

    def _read_token(self) -> str:
        """Read once: without the shared file system the kubelet can still be reached."""
        if not self._token:
            path = self._config.token_path
            data = self._config.files.wait(lambda: read_file(path, 65536), _READ_S)
            self._token = data.decode().strip()
        return self._token

    # What follows is called by the connection, in the channel's thread.

    def take_control(self) -> list[bytes]:
        """Frames that wait to be sent, before any bytes of logs and streams."""
        with self._lock:
            waiting = list(self._outgoing)
            self._outgoing.clear()
        return [*map(codec.frame_bytes, waiting), *self.streams.take_control()]

    def take_answer(self) -> bytes:
        """A frame with bytes of a log; b"" where there is none."""
        if self._returned:
            with self._lock:
                returned, self._returned = self._returned, []
            self._reads.update((read.id, read) for read in returned)
        while self._being_read + len(self._answers) < _LOG_ANSWERS and self._start_read():
            pass
        with self._lock:
            return self._answers.popleft() if self._answers else b""

    def handle(self, frame: Any) -> None:
        """One frame of the kubelet's."""
        if isinstance(frame, frames.StatusAck):
            self.acked_seq = max(self.acked_seq, frame.seq)
            if frame.kept:
                self.kept_seq = max(self.kept_seq, frame.seq)
            self._config.on_frame(frame)
        elif isinstance(frame, frames.LogRead):
            self._reads[frame.id] = frame
        elif isinstance(frame, frames.LogCancel):
            self._reads.pop(frame.id, None)
        elif isinstance(frame, frames.Welcome):
            if self._meeting.met():
                self._config.post(self._config.on_port)
            with self._lock:
                self.is_welcome = True
                if self._record is not None:
                    self._outgoing.append(frames.Status(self._record))
            self._config.on_frame(frame)
        elif isinstance(frame, frames.Reject):
            self._config.on_frame(frame)
            raise ParseError(f"the kubelet rejects this attempt: {frame.reason}")
        elif isinstance(frame, _FOR_THE_POD):
            self._config.on_frame(frame)
        else:
            self._handle_stream(frame)

    def _handle_stream(self, frame: Any) -> None:
        if isinstance(frame, (frames.ExecOpen, frames.AttachOpen, frames.DialOpen)):
            opened = self.streams.open(frame)
            if opened is not None:
                self._config.on_frame(opened)
        elif isinstance(frame, frames.StreamResize):
            resized = self.streams.resize(frame)
            if resized is not None:
                self._config.on_frame(resized)
        elif isinstance(frame, frames.StreamClose):
            self.streams.hang_up(frame)

    def _start_read(self) -> bool:
        """Have one log read answered that can be answered now; whether there was one."""
        ends: dict[str, int] = {}
        for read in self._reads.values():
            if read.path not in ends:
                ends[read.path] = self._config.log_end(read.path)
            if not read.wait or read.offset < ends[read.path]:
                break
        else:
            return False
        del self._reads[read.id]
        with self._lock:
            self._being_read += 1
            session = self._session
        kind = ("log", session, read.id)
        self._config.files.put(kind, partial(self._answer, read, session))
        return True

    def _answer(self, read: frames.LogRead, session: int) -> None:
        is_nothing = False
        try:
            offset, data, eof = self._config.read_log(
                read.path, read.offset, frames.LOG_CHUNK_BYTES
            )
            is_nothing = not (data or eof)
            answer = log_frame_bytes(LogBytes(read.id, offset, data, eof))
        except (HpkError, OSError) as error:
            answer = codec.frame_bytes(frames.LogData(read.id, read.offset, "", True, str(error)))
        with self._lock:
            if session != self._session:
                return
            self._being_read -= 1
            if read.wait and is_nothing:
                self._returned.append(read)  # it was rotated away in between
            else:
                self._answers.append(answer)
        self.wake()

    @property
    def is_closing(self) -> bool:
        """Whether the connection is to end once all is sent."""
        return self._closing
