"""The supervising process: one for each home, parent of every component.

It takes the lock and runs a tenure. A tenure that was fenced off, as a shared file system that
stalls will do, is not the end: every component is gone then, and so it waits until the file system
answers, takes the next generation by the rule that holds for everybody, and starts again. It ends
when somebody else holds the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time

from bootstrap import lock
from bootstrap.heart import Fence
from bootstrap.lock import Holder
from bootstrap.state import Interruption
from bootstrap.tenure import Tenure, stop_requested
from hpk.model.errors import HpkError, ParseError, PermanentError
from hpk.statefs import HpkPaths

log = logging.getLogger(__name__)

_KEPT_INTERRUPTIONS = 10
_SAY_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0


class ControlPlane:
    """The control plane of one home, through as many tenures as it takes."""

    def __init__(self, paths: HpkPaths, *, job_id: int | None) -> None:
        self._paths = paths
        self._job_id = job_id
        self._stop = asyncio.Event()

    def request_stop(self) -> None:
        """Begin to stop; returns at once."""
        self._stop.set()

    async def run(self) -> int:
        """Run until asked to stop; returns the exit code.

        :raises PermanentError: another control plane of this home is up.
        """
        holder = await lock.acquire(self._paths, job_id=self._job_id)
        interruptions: tuple[Interruption, ...] = ()
        pause_s = _FIRST_PAUSE_S
        while True:
            tenure = Tenure(self._paths, holder, self._stop, interruptions)
            try:
                failure = await tenure.run()
                again = failure is not None and _goes_on(failure, tenure.interruptions)
                if again and tenure.fence is None and not self._stop.is_set():
                    # It ran before: what keeps it from starting now is likely to pass.
                    log.warning("starting again in %g s", pause_s)
                    await tenure.pause(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except BaseException:
                if tenure.fence is None:
                    _release(self._paths, holder)
                raise
            finally:
                tenure.close()
            interruptions = tenure.interruptions
            if tenure.fence is not None:
                interruptions = _interrupted(interruptions, tenure.fence)
                following = await self._regain(holder, tenure, tenure.fence)
                if following is None:
                    return 0 if self._stop.is_set() else 1
                holder, pause_s = following, _FIRST_PAUSE_S
            elif self._stop.is_set() or not again:
                _release(self._paths, holder)
                return 0 if failure is None else 1

    async def _regain(self, holder: Holder, tenure: Tenure, fence: Fence) -> Holder | None:
        """The next generation, once the file system answers; None if it is not to be ours."""
        log.error("fenced off, all components are stopped: %s", fence.why)
        said_at = time.monotonic()
        while True:
            if not tenure.is_held_up:
                try:
                    if stop_requested(self._paths, holder.generation):
                        self._stop.set()
                    if self._stop.is_set():
                        _leave(self._paths, holder)
                        return None
                    following = lock.retake(self._paths, holder)
                except (OSError, HpkError) as error:
                    log.warning("the lock cannot be taken again yet: %s", error)
                else:
                    return self._regained(following)
            elif self._stop.is_set():
                return None
            if time.monotonic() - said_at > _SAY_S:
                said_at = time.monotonic()
                log.error("%s still does not answer", self._paths.home)
            await self._stopped_within(lock.BEAT_S)

    def _regained(self, following: Holder | None) -> Holder | None:
        if following is None:
            current = lock.read_holder(self._paths)
            where = "released it" if current is None or current.released else f"({current.where})"
            log.error("somebody else has taken over meanwhile %s: not starting again", where)
        else:
            log.warning("the file system answers: starting as generation %d", following.generation)
        return following

    async def _stopped_within(self, pause_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._stop.wait()


def _goes_on(failure: Exception, interruptions: tuple[Interruption, ...]) -> bool:
    return _is_open(interruptions) and not isinstance(failure, PermanentError | ParseError)


def _interrupted(before: tuple[Interruption, ...], fence: Fence) -> tuple[Interruption, ...]:
    if _is_open(before):
        return before  # it had not come back from the last one
    new = Interruption(began_at_s=fence.silent_since_s, ended_at_s=0.0, why=fence.why)
    return (*before, new)[-_KEPT_INTERRUPTIONS:]


def _is_open(interruptions: tuple[Interruption, ...]) -> bool:
    return bool(interruptions) and not interruptions[-1].ended_at_s


def _release(paths: HpkPaths, holder: Holder) -> None:
    try:
        lock.release(paths, holder)
    except OSError as error:
        log.warning("the lock cannot be released, it counts as left behind: %s", error)


def _leave(paths: HpkPaths, holder: Holder) -> None:
    """End in good order after a fence, if nobody has taken over."""
    if lock.read_holder(paths) == holder:
        paths.endpoint.unlink(missing_ok=True)
        paths.stop_request.unlink(missing_ok=True)
        lock.release(paths, holder)
    log.info("control plane is down")


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
