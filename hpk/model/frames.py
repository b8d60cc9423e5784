"""The channel's frames: what supervisor and kubelet say to each other over TLS.

On the wire a frame is a 4-byte big-endian length and that many bytes. Those that begin with ``{``
are JSON, an object whose ``type`` names one of the classes below; the others are the binary frames
of hpk.model.stream_frames and hpk.model.log_frames. One longer than MAX_FRAME_BYTES ends the
connection.
The supervisor dials, sends Hello, and waits for Welcome or Reject. An unknown type is skipped, so
that either side may be the newer one; a change that this cannot absorb raises PROTOCOL_VERSION. The
kubelet speaks to supervisors of all earlier versions, for jobs outlive upgrades, and rejects later
ones.

Version 2: the bundle may hold hpk.model.bundle.API_PORT_MARK, for the supervisor forwards to the
API server.

Version 3: streams. The kubelet opens one (ExecOpen, AttachOpen, DialOpen) under an id higher than
any that this connection had before; the supervisor answers StreamOpened when the program runs or
the other end is connected. Bytes go in binary frames, each channel of a stream with credits of its
own. StreamClosed is the supervisor's last word on a stream, after the end of all that it had to
say; StreamClose the kubelet's: nobody listens any more. With the connection all its streams end.
The bytes of logs are binary, too. PodUpdate came with it.
"""

from __future__ import annotations

from enum import Enum
from typing import Optional, Union

from hpk.model.bundle import Bundle
from hpk.model.frozen import dataclass
from hpk.model.ids import Nonce, PodUid, SlurmJobId
from hpk.model.plan import ContainerPlan
from hpk.model.record import SupervisorRecord

PROTOCOL_VERSION = 3
FORWARDER_VERSION = 2
STREAMS_VERSION = 3
UPDATES_VERSION = 3
MAX_FRAME_BYTES = 8 * 1024 * 1024
LOG_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Hello:
    """First frame of the supervisor; the token is the attempt's own, from its 0600 file."""

    protocol: int
    uid: PodUid
    nonce: Nonce
    job_id: SlurmJobId
    token: str


@dataclass(frozen=True)
class Status:
    """The whole record, after each change and after each Welcome."""

    record: SupervisorRecord


@dataclass(frozen=True)
class BundleRequest:
    """Asks for the bundle; answered by BundleReply when all it needs exists."""

    id: int


@dataclass(frozen=True)
class LogData:
    """Answer to LogRead: raw bytes of the CRI log from ``offset``. From supervisors of version 3 on
    errors alone come this way, bytes as hpk.model.log_frames has them.

    :param eof: the container has ended and nothing follows these bytes.
    :param error: "" or why nothing can be read; then the data is empty and eof is set.
    """

    id: int
    offset: int
    data_base64: str
    eof: bool
    error: str = ""


@dataclass(frozen=True)
class Welcome:
    """The kubelet knows this attempt; protocol is the version it will speak."""

    protocol: int


@dataclass(frozen=True)
class Reject:
    """The kubelet does not take this attempt.

    :param stop: the attempt is void (revoked, or its pod is gone): stop the pod and end.
    """

    reason: str
    stop: bool


@dataclass(frozen=True)
class BundleReply:
    """The bundle asked for by ``id``; with id 0, an update nobody asked for."""

    id: int
    bundle: Bundle


@dataclass(frozen=True)
class Stop:
    """Stop the pod: SIGTERM, wait ``grace_period_s``, SIGKILL. A later Stop may shorten it."""

    grace_period_s: int


@dataclass(frozen=True)
class StatusAck:
    """The kubelet has taken in the record of this seq; a finished supervisor may end.

    :param kept: what the record says outlives the kubelet too: of a pod's end, its status was
        written to the API server. Until then a supervisor that has it on no disk keeps it.
    """

    seq: int
    kept: bool = True


@dataclass(frozen=True)
class LogRead:
    """Reads the log of one container.

    :param path: ``log_path`` of the container's record.
    :param offset: from where, in bytes.
    :param wait: answer only when there is something after ``offset`` or nothing more can come.
    """

    id: int
    path: str
    offset: int
    wait: bool


@dataclass(frozen=True)
class LogCancel:
    """Nobody waits any more for the answer to LogRead ``id``."""

    id: int


@dataclass(frozen=True)
class SignalContainer:
    """Signal a container's main process, if it runs, as ``kill -N 1`` in the container would: a
    process 1 that has no handler for a signal does not get it. Of an MPI run every rank gets it.

    :param container: its name.
    :param number: of the signal.
    :param not_before_s: seconds after the process's start that it is left alone.
    """

    container: str
    number: int
    not_before_s: int = 0


@dataclass(frozen=True)
class PodUpdate:
    """What may change of a pod while it runs. The newest holds; sent when something has changed, in
    each session again.

    :param active_deadline_s: as PodPlan has it.
    :param ephemeral_containers: all there are to be. One that the supervisor knows by its name
        stays as it is.
    """

    active_deadline_s: Optional[int]
    ephemeral_containers: tuple[ContainerPlan, ...] = ()


@dataclass(frozen=True)
class TerminalSize:
    """In characters."""

    width: int
    height: int


@dataclass(frozen=True)
class ExecOpen:
    """Run a program in a container, with the streams that are asked for.

    :param container: its name, of whatever kind.
    :param tty: on a terminal of its own; then standard error comes as standard output.
    :param rank: of an MPI run, the rank beside which it runs; -1: the first.
    :param node: of an MPI run, the host beside whose first rank it runs; "" where ``rank`` says.
    """

    id: int
    container: str
    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    size: Optional[TerminalSize] = None
    rank: int = -1
    node: str = ""


@dataclass(frozen=True)
class AttachOpen:
    """Join the container's own program: its output from now on, its input where it has one."""

    id: int
    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    size: Optional[TerminalSize] = None


@dataclass(frozen=True)
class DialOpen:
    """Connect to a port of the pod's own 127.0.0.1, else ::1; the bytes are channels 0 and 1."""

    id: int
    port: int


@dataclass(frozen=True)
class StreamResize:
    """The client's terminal has another size."""

    id: int
    size: TerminalSize


@dataclass(frozen=True)
class StreamClose:
    """The client has gone: hang up on the program, or the connection, and say StreamClosed."""

    id: int


class StreamError(str, Enum):
    """Why a stream came to nothing; "" where it did not."""

    NONE = ""
    NOT_FOUND = "NotFound"
    """The pod has no such container that runs."""
    NOT_STARTED = "NotStarted"
    """The program cannot be started, or nobody listens at the port."""
    LOST = "Lost"
    """The program was lost with its container or the pod."""
    REFUSED = "Refused"
    """What was asked for makes no sense here."""


@dataclass(frozen=True)
class StreamOpened:
    """The program runs, the connection is made."""

    id: int


@dataclass(frozen=True)
class StreamClosed:
    """All is over.

    :param exit_code: of the program, as a shell tells it (128 + signal); None: there was none.
    """

    id: int
    exit_code: Optional[int] = None
    error: StreamError = StreamError.NONE
    message: str = ""


ToSupervisor = Union[
    Welcome,
    Reject,
    BundleReply,
    Stop,
    StatusAck,
    LogRead,
    LogCancel,
    SignalContainer,
    PodUpdate,
    ExecOpen,
    AttachOpen,
    DialOpen,
    StreamResize,
    StreamClose,
]

FRAME_TYPES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        Hello,
        Status,
        BundleRequest,
        LogData,
        Welcome,
        Reject,
        BundleReply,
        Stop,
        StatusAck,
        LogRead,
        LogCancel,
        SignalContainer,
        PodUpdate,
        ExecOpen,
        AttachOpen,
        DialOpen,
        StreamResize,
        StreamClose,
        StreamOpened,
        StreamClosed,
    )
}
