"""What the supervising process tells of itself: ``$HPK_HOME/control-plane/state.json``."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bootstrap import lock
from bootstrap.host import Identity
from hpk.durable import write_atomically
from hpk.model import codec
from hpk.model.errors import ParseError
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)


class Phase(StrEnum):
    """How far the control plane has come."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class ComponentPhase(StrEnum):
    """How far one component has come."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentState:
    """One component.

    :param start_ticks: with the pid names the process; see bootstrap.processes.
    :param since_s: Unix seconds of the last change of phase.
    :param message: why it is not ready, "" if it is.
    """

    name: str
    version: str
    phase: ComponentPhase
    pid: int = 0
    start_ticks: int = 0
    restarts: int = 0
    since_s: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interruption:
    """A time without a control plane, from which it came back by itself.

    :param began_at_s: Unix seconds of the last heartbeat before it.
    :param ended_at_s: when everything ran again; 0 as long as it does not.
    """

    began_at_s: float
    ended_at_s: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneState:
    """The whole.

    :param generation: of the lock under which it runs.
    :param identity: where the pids mean something.
    :param message: why it failed, with the remedy.
    :param interruptions: the latest ones in the life of this process, oldest first.
    """

    generation: int
    identity: Identity
    phase: Phase
    message: str
    address: str
    components: tuple[ComponentState, ...]
    interruptions: tuple[Interruption, ...] = ()


def state_path(paths: HpkPaths) -> Path:
    """Where the state lies."""
    return paths.control_plane / "state.json"


def read_state(paths: HpkPaths) -> ControlPlaneState | None:
    """The state as last written; None where there is none or it cannot be read."""
    try:
        return codec.loads(ControlPlaneState, state_path(paths).read_text())
    except (FileNotFoundError, ParseError):
        return None


class StatePublisher:
    """Keeps the state and writes each change, as long as no later generation is in force."""

    def __init__(self, paths: HpkPaths, state: ControlPlaneState) -> None:
        self._paths = paths
        self.state = state
        self._write()

    def begin(self, address: str, components: tuple[ComponentState, ...]) -> None:
        """These are the components, none of them started."""
        self.state = dataclasses.replace(self.state, address=address, components=components)
        self._write()

    def set_phase(self, phase: Phase, message: str = "") -> None:
        """The whole has come so far."""
        self.state = dataclasses.replace(self.state, phase=phase, message=message)
        self._write()

    def set_interruptions(self, interruptions: tuple[Interruption, ...]) -> None:
        """What became of the interruptions."""
        self.state = dataclasses.replace(self.state, interruptions=interruptions)
        self._write()

    def set_component(self, component: ComponentState) -> None:
        """One component has."""
        components = tuple(
            component if old.name == component.name else old for old in self.state.components
        )
        self.state = dataclasses.replace(self.state, components=components)
        self._write()

    def mend(self) -> None:
        """Write it again if it is not what it was left as: a full disk, or a holder fenced off."""
        try:
            if state_path(self._paths).read_text(errors="replace") == self._text():
                return
        except OSError:
            pass
        self._write()

    def _text(self) -> str:
        return codec.dumps(self.state) + "\n"

    def _write(self) -> None:
        try:
            if not lock.is_superseded(self._paths, self.state.generation):
                write_atomically(state_path(self._paths), self._text())
        except OSError as error:
            # What is told must not end what is done; the next heartbeat mends it.
            log.warning("%s cannot be written: %s", state_path(self._paths), error)
