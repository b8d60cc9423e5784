"""Keeps one component running: starts it, waits until it is ready, starts it again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from pathlib import Path

from bootstrap.plan import ComponentPlan
from bootstrap.processes import ProcessId
from bootstrap.readiness import Check
from bootstrap.state import ComponentPhase, ComponentState, StatePublisher
from hpk import subproc
from hpk.model.errors import HpkError, TransientError

log = logging.getLogger(__name__)

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 15.0
_STEADY_S = 30.0
"""A component that ran for so long has recovered: its next backoff is the first again."""
_READY_POLL_S = 0.1
_SETTLED_S = 0.5
_TAIL_BYTES = 3000


class Runner:
    """One component."""

    def __init__(
        self,
        plan: ComponentPlan,
        version: str,
        log_path: Path,
        check: Check | None,
        publisher: StatePublisher,
    ) -> None:
        self.plan = plan
        self.log_path = log_path
        self._check = check
        self._publisher = publisher
        self._state = ComponentState(
            name=plan.name, version=version, phase=ComponentPhase.WAITING, since_s=time.time()
        )
        self._process: asyncio.subprocess.Process | None = None
        self._running: ProcessId | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._first_exit = asyncio.Event()
        self._stopping = threading.Event()

    @property
    def state(self) -> ComponentState:
        """As last published."""
        return self._state

    def begin(self) -> None:
        """Start to keep it running."""
        self._task = asyncio.create_task(self._keep_running(), name=f"run {self.plan.name}")

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait for the first time that it is ready.

        :raises TransientError: it ended before, or was not ready in time; with the end of its log.
        """
        ready = asyncio.create_task(self._ready.wait())
        ended = asyncio.create_task(self._first_exit.wait())
        try:
            await asyncio.wait(
                (ready, ended), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
            ended.cancel()
        if self._ready.is_set():
            return
        how = "ended while starting" if self._first_exit.is_set() else f"not ready in {timeout_s}s"
        tail = await asyncio.to_thread(log_tail, self.log_path)
        raise TransientError(
            f"{self.plan.name} {how}; the end of its log:\n{tail}",
            remedy=f"read {self.log_path}, then try hpk up again",
        )

    async def stop(self) -> None:
        """SIGTERM, after the plan's grace SIGKILL; returns when it has ended."""
        self._stopping.set()
        if self._process is not None and self._task is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            done, _ = await asyncio.wait((self._task,), timeout=self.plan.stop_timeout_s)
            if not done:
                log.warning("%s did not stop, killing it", self.plan.name)
        await self.ended()
        self._publish(ComponentPhase.STOPPED)

    def kill(self) -> None:
        """SIGKILL, now, without waiting, for good. From any thread: it reaps nothing."""
        # In this order; `_run_once` has the opposite one, so that one of them kills it.
        self._stopping.set()
        running = self._running
        if running is not None:
            running.send(signal.SIGKILL)

    async def ended(self) -> None:
        """Kill it and wait until it has really ended, which a hung file system may put off."""
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_running(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                why = await self._run_once()
            except (HpkError, OSError) as error:
                why = f"cannot be started: {error}"
            except Exception as error:
                # Nobody reads what this task ends with, and the control plane goes on without it.
                log.exception("%s could not be kept running", self.plan.name)
                why = f"could not be kept running: {error!r}"
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STEADY_S:
                backoff_s = _FIRST_BACKOFF_S
            self._first_exit.set()
            log.warning("%s %s, starts again in %g s", self.plan.name, why, backoff_s)
            self._publish(ComponentPhase.BACKOFF, restarts=self._state.restarts + 1, message=why)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)

    async def _run_once(self) -> str:
        """Run it until it ends; returns how it did. It has ended when this is left in any way."""
        process = await subproc.start(
            self.plan.argv, environment=self.plan.environment, output=self.log_path
        )
        try:
            self._process, self._running = process, ProcessId.of(process.pid)
            if not self._stopping.is_set():
                code = await self._watch(process, self._running)
            else:
                code = -signal.SIGKILL
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self._process = self._running = None
        if code < 0:
            return f"was ended by signal {-code}"
        return f"ended with exit code {code}"

    async def _watch(self, process: asyncio.subprocess.Process, identity: ProcessId) -> int:
        self._publish(ComponentPhase.STARTING, pid=identity.pid, start_ticks=identity.start_ticks)
        log.info("started %s as process %d", self.plan.name, process.pid)
        watcher = asyncio.create_task(self._publish_when_ready())
        try:
            return await process.wait()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _publish_when_ready(self) -> None:
        if self._check is None:
            # It serves nobody, so nobody can ask it; one that cannot start ends at once.
            await asyncio.sleep(_SETTLED_S)
        else:
            while True:
                if await self._is_ready(self._check):
                    break
                await asyncio.sleep(_READY_POLL_S)
        self._ready.set()
        self._publish(ComponentPhase.READY)

    async def _is_ready(self, check: Check) -> bool:
        try:
            return await check()
        except (HpkError, OSError, RuntimeError) as error:
            # RuntimeError is what Python says where no thread can be started.
            log.warning("%s cannot be asked whether it is ready: %s", self.plan.name, error)
            return False

    def _publish(
        self,
        phase: ComponentPhase,
        *,
        pid: int | None = None,
        start_ticks: int | None = None,
        restarts: int | None = None,
        message: str = "",
    ) -> None:
        alive = phase in (ComponentPhase.STARTING, ComponentPhase.READY)
        old = self._state
        self._state = ComponentState(
            name=old.name,
            version=old.version,
            phase=phase,
            pid=(old.pid if pid is None else pid) if alive else 0,
            start_ticks=(old.start_ticks if start_ticks is None else start_ticks) if alive else 0,
            restarts=old.restarts if restarts is None else restarts,
            since_s=time.time(),
            message=message,
        )
        self._publisher.set_component(self._state)


def log_tail(path: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-12:])
    except FileNotFoundError:
        return "(no log)"
    except OSError as error:
        return f"(no log: {error})"
