"""The kubelet's one door to the shared file system: threads of its own, deadlines, a health bit.

A network file system answers in milliseconds, or after minutes when its server fails over, or
never. So nothing that waits for it runs on the event loop, and nothing else waits in these threads:
images, name lookups and logs of other pods go on while some of them hang. Who reads much (logs)
gets half of the threads at most.

What took too long is given up by whoever waited, and may still happen: every write that goes
through here can be done twice, and late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 8
_DEADLINE_S = 30.0
_STALLED_S = 10.0
_LOOK_S = 10.0


class StalledError(TimeoutError):
    """The shared file system did not answer in time. An OSError, as any other of its failures."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the shared file system has not answered for {seconds:.0f} s")

    def __str__(self) -> str:
        return str(self.args[0])


class SharedFiles:
    """Runs what waits for the shared file system.

    :param home: a directory of it that is looked at now and then, so that a stall shows by itself.
    """

    def __init__(
        self, home: Path, *, threads: int = _THREADS, deadline_s: float = _DEADLINE_S
    ) -> None:
        self._home = home
        self._deadline_s = deadline_s
        self._most_threads = threads
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0
        self._changed = threading.Condition()
        self._running: dict[int, float] = {}
        self._last: dict[Hashable, asyncio.Event] = {}
        self._bulk = asyncio.Semaphore(max(1, threads // 2))

    @property
    def problem(self) -> str:
        """What is wrong with the file system, "" for nothing: how long a call has waited."""
        now_s = time.monotonic()
        with self._changed:
            longest_s = max((now_s - since_s for since_s in self._running.values()), default=0.0)
        return str(StalledError(longest_s)) if longest_s > _STALLED_S else ""

    async def do(
        self, function: Callable[..., T], *arguments: Any, deadline_s: float | None = None
    ) -> T:
        """The function's result, from a thread.

        :raises StalledError: it took longer than ``deadline_s``. It may still be done.
        """
        async with self._deadline(deadline_s):
            return await _result(self._submit(lambda: function(*arguments)))

    async def do_in_turn(
        self,
        turn: Hashable,
        function: Callable[..., T],
        *arguments: Any,
        deadline_s: float | None = None,
    ) -> T:
        """The same, begun only when what was begun before with this ``turn`` has really ended: what
        was given up may go on for minutes, and must not undo what came after it."""
        async with self._deadline(deadline_s):
            while (last := self._last.get(turn)) is not None:
                await last.wait()
            future = self._submit(lambda: function(*arguments))
            ended = self._last[turn] = asyncio.Event()

            def end() -> None:
                del self._last[turn]
                ended.set()

            future.add_done_callback(_on_this_loop(end))
            return await _result(future)

    async def do_bulk(self, function: Callable[..., T], *arguments: Any) -> T:
        """The same for reading much: such calls never take all the threads, not even those that
        were given up and still hang."""
        async with self._deadline(None):
            await self._bulk.acquire()
            future = self._submit(lambda: function(*arguments))
            future.add_done_callback(_on_this_loop(self._bulk.release))
            return await _result(future)

    @contextlib.asynccontextmanager
    async def _deadline(self, deadline_s: float | None) -> AsyncIterator[None]:
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        timeout = asyncio.timeout(limit_s)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            # Else it is the file system's own, of what was asked for.
            if timeout.expired():
                raise StalledError(limit_s) from error
            raise

    async def keep_looking(self) -> None:
        """Look at the home now and then, until cancelled, and say when it stalls and comes back."""
        was_stalled = False
        while True:
            try:
                await self.do(self._home.stat, deadline_s=_LOOK_S)
            except OSError as error:
                log.warning("the shared file system fails: %s", error)
                was_stalled = True
            else:
                if was_stalled:
                    log.info("the shared file system answers again")
                was_stalled = False
            await asyncio.sleep(_LOOK_S)

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._changed:
            self._work.append((future, call))
            if len(self._work) > self._idle and self._threads < self._most_threads:
                # Daemons: one that hangs in the kernel must not keep the process from ending.
                threading.Thread(target=self._run, name="shared-files", daemon=True).start()
                self._threads += 1
            self._changed.notify()
        return future

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            with self._changed:
                self._running.pop(me, None)
                self._idle += 1
                while not self._work:
                    self._changed.wait()
                self._idle -= 1
                future, call = self._work.popleft()
                self._running[me] = time.monotonic()
            # What nobody waits for any more is not begun.
            if future.set_running_or_notify_cancel():
                _settle(future, call)
            del future, call


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


async def _result(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


def _on_this_loop(call: Callable[[], None]) -> Callable[[object], None]:
    """For a thread to call: it is called on the loop that runs now, unless that has ended."""
    loop = asyncio.get_running_loop()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(call)

    return tell
