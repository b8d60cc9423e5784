"""The supervising process: one for each home, parent of every component.

In order: lock, remains of a predecessor, binaries, files, components stage by stage, roles,
endpoint.json. Then it beats, rotates logs and watches for a request to stop. Stopping goes
backwards. It never stops what runs in Slurm.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from bootstrap import lock, plan, rbac, readiness
from bootstrap.binaries import ensure_all
from bootstrap.components import PROGRAMS
from bootstrap.lock import Holder
from bootstrap.logs import control_plane_log, rotate
from bootstrap.prepare import prepare
from bootstrap.remains import end_remains
from bootstrap.runner import Runner
from bootstrap.site import Site
from bootstrap.state import (
    ControlPlaneState,
    Phase,
    StatePublisher,
)
from hpk import __version__
from hpk.config.load import load_config
from hpk.durable import private_directory, write_atomically
from hpk.model import codec
from hpk.model.errors import HpkError, TransientError
from hpk.model.settings import Endpoint
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)

_WATCH_S = 0.5
_RBAC_TRIES = 100
_RBAC_PAUSE_S = 0.2


class Silent:
    """A Reporter that says nothing: `hpk up` has shown the binaries already."""

    def step(self, name: str, text: str) -> None:
        """Nothing."""

    def done(self, name: str, text: str) -> None:
        """Nothing."""


class ControlPlane:
    """All components of one home."""

    def __init__(self, paths: HpkPaths, *, job_id: int | None) -> None:
        self._paths = paths
        self._job_id = job_id
        self._stop = asyncio.Event()
        self._fenced = False
        self._endpoint = ""
        self._runners: list[Runner] = []

    def request_stop(self) -> None:
        """Begin to stop; returns at once."""
        self._stop.set()

    async def run(self) -> int:
        """Run until asked to stop; returns the exit code.

        :raises PermanentError: another control plane of this home is up.
        """
        holder = await lock.acquire(self._paths, job_id=self._job_id)
        heart = asyncio.create_task(self._beat(holder))
        try:
            return await self._run_locked(holder)
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            if not self._fenced:
                lock.release(self._paths, holder)

    async def _run_locked(self, holder: Holder) -> int:
        private_directory(self._paths.control_plane)
        await asyncio.to_thread(end_remains, self._paths)
        self._paths.endpoint.unlink(missing_ok=True)
        publisher = StatePublisher(
            self._paths,
            ControlPlaneState(
                generation=holder.generation,
                identity=holder.identity,
                phase=Phase.STARTING,
                message="",
                address="",
                components=(),
            ),
        )
        watcher = asyncio.create_task(self._watch(holder))
        starting = asyncio.create_task(self._start(holder, publisher))
        stopping = asyncio.create_task(self._stop.wait())
        failure = ""
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            elif (error := starting.exception()) is not None:
                failure = str(error) if isinstance(error, HpkError) else repr(error)
                log.error("start failed: %s", failure, exc_info=error)
            else:
                await stopping
        finally:
            watcher.cancel()
            stopping.cancel()
            await asyncio.gather(watcher, stopping, return_exceptions=True)
            await self._shut_down(publisher, failure)
        return 1 if failure or self._fenced else 0

    async def _start(self, holder: Holder, publisher: StatePublisher) -> None:
        config = load_config(self._paths)
        stored = await ensure_all(self._paths, config.binaries, Silent())
        programs = {name: one.path for name, one in stored.items()}
        site = await asyncio.to_thread(prepare, self._paths, config.control_plane, programs)
        self._make_runners(site, publisher)
        for stage in sorted({runner.plan.stage for runner in self._runners}):
            members = [runner for runner in self._runners if runner.plan.stage == stage]
            for runner in members:
                runner.begin()
            if stage == max(runner.plan.stage for runner in self._runners):
                await self._apply_roles(site)
            await asyncio.gather(
                *(
                    runner.wait_ready(config.control_plane.start_timeout_s)
                    for runner in members
                    if runner.plan.essential
                )
            )
        self._write_endpoint(holder, site)
        publisher.set_phase(Phase.RUNNING)
        log.info("control plane is up at %s", site.server)

    def _make_runners(self, site: Site, publisher: StatePublisher) -> None:
        checks = readiness.checks(site)
        for component in plan.components(site):
            program = PROGRAMS.get(component.name)
            self._runners.append(
                Runner(
                    component,
                    program.version if program else f"v{__version__}",
                    self._paths.logs / f"{component.name}.log",
                    checks.get(component.name),
                    publisher,
                )
            )
        publisher.begin(site.address, tuple(runner.state for runner in self._runners))

    async def _apply_roles(self, site: Site) -> None:
        client = readiness.api_client(site)
        for path, manifest in rbac.MANIFESTS:
            for left in reversed(range(_RBAC_TRIES)):
                try:
                    await asyncio.to_thread(client.apply, path, manifest)
                    break
                except TransientError as error:
                    # A new API server makes its namespaces a moment after it says it is ready.
                    if left == 0:
                        raise
                    log.debug("applying %s: %s", path, error)
                    await asyncio.sleep(_RBAC_PAUSE_S)

    def _write_endpoint(self, holder: Holder, site: Site) -> None:
        endpoint = Endpoint(
            generation=holder.generation,
            host=holder.identity.host,
            address=site.address,
            pid=os.getpid(),
            job_id=self._job_id,
            api_port=site.ports.api,
            channel_port=site.ports.channel,
            started_at_s=holder.started_at_s,
        )
        self._endpoint = codec.dumps(endpoint) + "\n"
        write_atomically(self._paths.endpoint, self._endpoint)

    async def _shut_down(self, publisher: StatePublisher, failure: str) -> None:
        if self._fenced:
            # Another control plane is in force: its files are not ours to touch.
            for runner in self._runners:
                runner.kill()
            return
        publisher.set_phase(Phase.STOPPING, failure)
        self._endpoint = ""
        self._paths.endpoint.unlink(missing_ok=True)
        for stage in sorted({runner.plan.stage for runner in self._runners}, reverse=True):
            members = [runner for runner in self._runners if runner.plan.stage == stage]
            await asyncio.gather(*(runner.stop() for runner in members))
        self._paths.stop_request.unlink(missing_ok=True)
        publisher.set_phase(Phase.FAILED if failure else Phase.STOPPED, failure)
        log.info("control plane is down")

    async def _beat(self, holder: Holder) -> None:
        sequence, last = 0, time.monotonic()
        while True:
            sequence += 1
            try:
                async with asyncio.timeout(lock.SELF_FENCE_S):
                    ours = await asyncio.to_thread(lock.beat, self._paths, holder, sequence)
                if ours:
                    mend(self._paths.endpoint, self._endpoint)  # in this thread, as its removal is
            except (OSError, TimeoutError) as error:
                log.warning("the heartbeat cannot be written: %r", error)
                ours = time.monotonic() - last < lock.SELF_FENCE_S
            else:
                last = time.monotonic()
            if not ours:
                log.error("fenced off: another control plane may be in force")
                self._fenced = True
                for runner in self._runners:
                    runner.kill()
                self._stop.set()
                return
            await asyncio.sleep(lock.BEAT_S)

    async def _watch(self, holder: Holder) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            if stop_requested(self._paths, holder.generation):
                log.info("asked to stop by stop-request.json")
                self._stop.set()
            logs = [runner.log_path for runner in self._runners]
            for path in (*logs, control_plane_log(self._paths)):
                with contextlib.suppress(OSError):
                    rotate(path)


def mend(path: Path, text: str) -> None:
    """Write a file again that was damaged or removed: without it no pod would find us."""
    try:
        if not text or path.read_text(errors="replace") == text:
            return
    except FileNotFoundError:
        pass
    log.warning("%s was changed by somebody else: writing it again", path)
    write_atomically(path, text)


def stop_requested(paths: HpkPaths, generation: int) -> bool:
    """Whether this generation, and no earlier one, is asked to stop."""
    try:
        data = json.loads(paths.stop_request.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("generation") == generation


def main(arguments: list[str]) -> int:
    """``python -m bootstrap.supervise [JOB_ID]``."""
    job_id = int(arguments[0]) if arguments else None
    os.chdir("/")  # so that no directory of the user's is held
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        return asyncio.run(supervise(HpkPaths.from_environment(), job_id))
    except HpkError as error:
        log.error("%s", error)  # noqa: TRY400 - says what to do; a traceback would not
        return 1


async def supervise(paths: HpkPaths, job_id: int | None) -> int:
    """Run a control plane until a signal or a request stops it; returns the exit code."""
    os.umask(0o077)
    control_plane = ControlPlane(paths, job_id=job_id)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, control_plane.request_stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("ignoring SIGHUP"))
    return await control_plane.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
