"""One generation of the lock: its components, from the first that starts to the last that ends.

In order: remains of a predecessor, binaries, files, components stage by stage, roles and policies,
endpoint.json, and when it can be used the kubeconfig. Then it beats, rotates logs and watches for a
request to stop. Stopping goes backwards. It never stops what runs in Slurm.

It looks at the lock before it touches a file of the home: another generation's are not its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from bootstrap import lock, plan, rbac, readiness
from bootstrap.admission_policy import manifests
from bootstrap.binaries import ensure_all
from bootstrap.components import PROGRAMS
from bootstrap.heart import Fence, Heart
from bootstrap.lock import Holder
from bootstrap.logs import control_plane_log, rotate
from bootstrap.prepare import prepare, write_admin_kubeconfig
from bootstrap.remains import end_remains
from bootstrap.runner import Runner
from bootstrap.site import Site
from bootstrap.state import ControlPlaneState, Interruption, Phase, StatePublisher
from bootstrap.usable import missing_in_api
from hpk import __version__
from hpk.config.load import load_config
from hpk.durable import private_directory, write_atomically
from hpk.model import codec
from hpk.model.errors import HpkError, TransientError
from hpk.model.settings import Endpoint
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)

_WATCH_S = 0.5
_APPLY_TRIES = 100
_APPLY_PAUSE_S = 0.2
_USABLE_POLL_S = 0.2


class Silent:
    """A Reporter that says nothing: `hpk up` has shown the binaries already."""

    def step(self, name: str, text: str) -> None:
        """Nothing."""

    def done(self, name: str, text: str) -> None:
        """Nothing."""


class Tenure:
    """All components of one home, for as long as one generation of the lock is ours.

    :param stop: set by whoever wants it to end; a request by file sets it, too.
    :param interruptions: those of the tenures before; a last one without an end ends when all
        components run.
    """

    def __init__(
        self,
        paths: HpkPaths,
        holder: Holder,
        stop: asyncio.Event,
        interruptions: tuple[Interruption, ...] = (),
    ) -> None:
        self._paths = paths
        self._holder = holder
        self._stop = stop
        self._interruptions = interruptions
        self._runners: list[Runner] = []
        self._publisher: StatePublisher | None = None
        self._endpoint = ""
        self._fallen = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._heart = Heart(paths, holder, on_beat=self._on_beat, on_fence=self._on_fence)
        self.fence: Fence | None = None
        """Why it ended, if it had to."""

    @property
    def interruptions(self) -> tuple[Interruption, ...]:
        """As they are at the end of this tenure."""
        return self._interruptions

    @property
    def is_held_up(self) -> bool:
        """Whether the file system still holds what this tenure began to write."""
        return self._heart.is_held_up

    async def run(self) -> Exception | None:
        """Run until stopped or fenced off; returns why it could not start, if it could not.

        After a fence every component has ended when this returns; without one the heart beats on
        until `close`.
        """
        self._heart.start()
        try:
            publisher = await self._take_over()
        except (OSError, HpkError) as error:
            log.error("start failed: %s", error)  # noqa: TRY400 - says it all
            return error
        return None if publisher is None else await self._run(publisher)

    async def pause(self, pause_s: float) -> None:
        """Beat on for so long, or until it is to stop or fenced off."""
        watcher = asyncio.create_task(self._watch())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ending()
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    def close(self) -> None:
        """Beat no more; returns at once."""
        self._heart.stop()

    async def _run(self, publisher: StatePublisher) -> Exception | None:
        watcher = asyncio.create_task(self._watch())
        starting = asyncio.create_task(self._start(publisher))
        ending = asyncio.create_task(self._ending())
        failure: Exception | None = None
        try:
            await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
            elif (error := starting.exception()) is not None:
                if not isinstance(error, Exception):
                    raise error
                log.error("start failed: %s", error, exc_info=error)
                failure = error
            else:
                await ending
        finally:
            watcher.cancel()
            ending.cancel()
            await asyncio.gather(watcher, ending, return_exceptions=True)
            if self.fence is None:
                await self._shut_down(publisher, failure)
            else:
                # Another control plane may be in force: its files are not ours to touch.
                for runner in self._runners:
                    runner.kill()
                await asyncio.gather(*(runner.ended() for runner in self._runners))
        return failure

    async def _take_over(self) -> StatePublisher | None:
        """Clear up after the last one; None if it was fenced off before it began."""
        if self._is_ours():
            private_directory(self._paths.control_plane)
            await asyncio.to_thread(end_remains, self._paths)
        if not self._is_ours():
            await self._fallen.wait()  # the next heartbeat finds the same
            return None
        self._paths.endpoint.unlink(missing_ok=True)
        if not self._interruptions:
            # Whoever waits for it, in whatever way, is not to take that of the last time for ours.
            self._paths.kubeconfig.unlink(missing_ok=True)
        self._publisher = StatePublisher(
            self._paths,
            ControlPlaneState(
                generation=self._holder.generation,
                identity=self._holder.identity,
                phase=Phase.STARTING,
                message="",
                address="",
                components=(),
                interruptions=self._interruptions,
            ),
        )
        return self._publisher

    async def _only_if_ours(self) -> None:
        """Go on only then; else wait for the fence, which cancels."""
        if not self._is_ours():
            await asyncio.Event().wait()

    def _is_ours(self) -> bool:
        """Whether the home's files are still this generation's to write."""
        return self.fence is None and not lock.is_superseded(self._paths, self._holder.generation)

    async def _ending(self) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._stop, self._fallen)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _start(self, publisher: StatePublisher) -> None:
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
                await self._apply_manifests(site, config.pods.unsupported_fields)
            await asyncio.gather(
                *(
                    runner.wait_ready(config.control_plane.start_timeout_s)
                    for runner in members
                    if runner.plan.essential
                )
            )
        await self._only_if_ours()
        self._write_endpoint(site)
        self._end_interruption(publisher)
        publisher.set_phase(Phase.RUNNING)
        log.info("control plane is up at %s", site.server)
        await self._until_usable(site)
        await self._only_if_ours()
        write_admin_kubeconfig(site)
        log.info("control plane can be used")

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

    async def _apply_manifests(self, site: Site, unsupported_fields: str) -> None:
        client = readiness.api_client(site)
        for path, manifest in (*rbac.MANIFESTS, *manifests(unsupported_fields)):
            for left in reversed(range(_APPLY_TRIES)):
                try:
                    await asyncio.to_thread(client.apply, path, manifest)
                    break
                except TransientError as error:
                    # A new API server makes its namespaces a moment after it says it is ready.
                    if left == 0:
                        raise
                    log.debug("applying %s: %s", path, error)
                    await asyncio.sleep(_APPLY_PAUSE_S)

    async def _until_usable(self, site: Site) -> None:
        client, since_s = readiness.api_client(site), self._holder.started_at_s
        while True:
            components = tuple(runner.state for runner in self._runners)
            look = partial(missing_in_api, client, components, since_s=since_s)
            if not await asyncio.to_thread(look):
                return
            await asyncio.sleep(_USABLE_POLL_S)

    def _write_endpoint(self, site: Site) -> None:
        endpoint = Endpoint(
            generation=self._holder.generation,
            host=self._holder.identity.host,
            address=site.address,
            pid=os.getpid(),
            job_id=self._holder.job_id,
            api_port=site.ports.api,
            channel_port=site.ports.channel,
            started_at_s=self._holder.started_at_s,
        )
        self._endpoint = codec.dumps(endpoint) + "\n"
        write_atomically(self._paths.endpoint, self._endpoint)

    def _end_interruption(self, publisher: StatePublisher) -> None:
        if self._interruptions and not self._interruptions[-1].ended_at_s:
            last = replace(self._interruptions[-1], ended_at_s=time.time())
            self._interruptions = (*self._interruptions[:-1], last)
            publisher.set_interruptions(self._interruptions)

    async def _shut_down(self, publisher: StatePublisher, failure: Exception | None) -> None:
        message = "" if failure is None else str(failure) or repr(failure)
        publisher.set_phase(Phase.STOPPING, message)
        self._endpoint = ""
        self._remove(self._paths.endpoint)
        for stage in sorted({runner.plan.stage for runner in self._runners}, reverse=True):
            members = [runner for runner in self._runners if runner.plan.stage == stage]
            await asyncio.gather(*(runner.stop() for runner in members))
        self._remove(self._paths.stop_request)
        publisher.set_phase(Phase.STOPPED if failure is None else Phase.FAILED, message)
        log.info("control plane is down")

    def _remove(self, path: Path) -> None:
        try:
            if self._is_ours():
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            if stop_requested(self._paths, self._holder.generation):
                log.info("asked to stop by stop-request.json")
                self._stop.set()
            logs = [runner.log_path for runner in self._runners]
            for path in (*logs, control_plane_log(self._paths)):
                with contextlib.suppress(OSError):
                    rotate(path)

    # In the heart's threads

    def _on_beat(self) -> None:
        # In the loop's thread, as the removal of these files is.
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._mend)

    def _on_fence(self, fence: Fence) -> None:
        self.fence = fence
        for runner in tuple(self._runners):
            runner.kill()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._fallen.set)

    def _mend(self) -> None:
        if self.fence is not None or self._publisher is None:
            return
        try:
            mend(self._paths.endpoint, self._endpoint, is_ours=self._is_ours)
        except OSError as error:
            log.warning("%s cannot be mended: %s", self._paths.endpoint, error)
        self._publisher.mend()


def mend(path: Path, text: str, *, is_ours: Callable[[], bool]) -> None:
    """Write a file again that was damaged or removed: without it no pod would find us.

    :param is_ours: asked after the look at it, which may have stalled for as long as it takes
        somebody else to take over and write a file that is as it should be.
    """
    try:
        if not text or path.read_text(errors="replace") == text:
            return
    except FileNotFoundError:
        pass
    if not is_ours():
        return
    log.warning("%s was changed by somebody else: writing it again", path)
    write_atomically(path, text)


def stop_requested(paths: HpkPaths, generation: int) -> bool:
    """Whether this generation, and no earlier one, is asked to stop."""
    try:
        data = json.loads(paths.stop_request.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("generation") == generation
