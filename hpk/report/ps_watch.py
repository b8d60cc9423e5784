"""Pods beside their Slurm jobs, again after each change.

It is the API server's watch that is followed: the kubelet writes there what Slurm says of a job.
Slurm is asked once for each change that is shown, and never because time has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from hpk.model.errors import HpkError
from hpk.report.cluster import Cluster, PrintedPod
from hpk.report.ps import PsRow, rows_of
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

_SHOW_S = 1.0
_AGAIN_S = 2.0

_News = tuple[PrintedPod, ...] | HpkError


async def watch_rows(
    paths: HpkPaths, backend: CliBackend, namespace: str | None
) -> AsyncGenerator[tuple[PsRow, ...] | HpkError]:
    """The rows, whenever one has changed, once a second at most; or what is in the way of knowing
    them. Without end: a control plane that is started anew is found again."""
    latest = _Latest()
    thread = threading.Thread(target=_follow, args=(paths, namespace, latest), daemon=True)
    thread.start()
    try:
        async for news in _shown(latest, paths, backend, namespace):
            yield news
    finally:
        latest.stopped.set()


async def _shown(
    latest: _Latest, paths: HpkPaths, backend: CliBackend, namespace: str | None
) -> AsyncGenerator[tuple[PsRow, ...] | HpkError]:
    shown: tuple[PsRow, ...] | str | None = None
    while True:
        news = await latest.next()
        if not isinstance(news, HpkError):
            try:
                rows = await rows_of(news, paths, backend, namespace)
            except HpkError as error:
                news = error
            else:
                if rows != shown:
                    shown = rows
                    yield rows
        if isinstance(news, HpkError) and str(news) != shown:
            shown = str(news)
            yield news
        await asyncio.sleep(_SHOW_S)


class _Latest:
    """What was told last; what came before it and was not taken is forgotten."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._news: _News = ()
        self.stopped = threading.Event()

    def tell(self, news: _News) -> None:
        """From a thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._put, news)

    def _put(self, news: _News) -> None:
        self._news = news
        self._changed.set()

    async def next(self) -> _News:
        """Waits for news."""
        await self._changed.wait()
        self._changed.clear()
        return self._news


def _follow(paths: HpkPaths, namespace: str | None, latest: _Latest) -> None:
    """Runs in a thread, which is not ended: it waits for the API server, and for nobody else."""
    while not latest.stopped.is_set():
        try:
            for pods in Cluster(paths).watch_pods(namespace):
                latest.tell(pods)
                if latest.stopped.is_set():
                    return
        except HpkError as error:
            latest.tell(error)
        latest.stopped.wait(_AGAIN_S)
