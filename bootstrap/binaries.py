"""Brings every upstream program: finds it, else downloads it, else builds it.

Looked for in ``$HPK_CACHE/binaries``, in the installation's own ``libexec/hpk/binaries`` (a site's
gift to its users) and, at exactly the right version, on PATH. Several processes that miss the same
program wait for the one that brings it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bootstrap import build, store
from bootstrap.components import PROGRAMS, SAMPLES, Program
from bootstrap.download import Downloader
from bootstrap.store import Stored
from hpk import subproc
from hpk.config.schema import BinariesConfig
from hpk.durable import private_directory
from hpk.flock import wait_for_lock
from hpk.model.errors import HpkError, PermanentError
from hpk.statefs import HpkPaths

_KNOWN = {**PROGRAMS, **SAMPLES}


class Reporter(Protocol):
    """Is told how far a program has come; draws it or stays silent."""

    def step(self, name: str, text: str) -> None:
        """What is being done for the program now, replaced by the next call."""

    def done(self, name: str, text: str) -> None:
        """The program is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Stores to look in, in order; what is missing goes into ``cache``."""

    cache: Path
    site: Path

    @classmethod
    def of(cls, paths: HpkPaths) -> Places:
        """Those of this home and this installation."""
        return cls(cache=paths.binaries, site=Path(sys.prefix) / "libexec/hpk/binaries")


async def ensure_all(
    paths: HpkPaths,
    config: BinariesConfig,
    reporter: Reporter,
    names: Iterable[str] = tuple(PROGRAMS),
) -> dict[str, Stored]:
    """All these programs, verified.

    :raises PermanentError: one is damaged, or can neither be downloaded nor built.
    """
    if unknown := sorted(set(config.sha256) - set(_KNOWN)):
        raise PermanentError(
            f"[binaries.sha256] names what is no program of ours: {', '.join(unknown)}",
            remedy=f"the programs are {', '.join(sorted(_KNOWN))}",
        )
    stored = await ensure_programs(paths, config, reporter, [_KNOWN[name] for name in names])
    reporter.done("programs", f"{len(stored)} at their versions, checksums verified")
    return stored


async def ensure_programs(
    paths: HpkPaths, config: BinariesConfig, reporter: Reporter, wanted: Sequence[Program]
) -> dict[str, Stored]:
    """All these programs, whether or not they are among ours, verified.

    :raises PermanentError: one is damaged, or can neither be downloaded nor built.
    """
    places = Places.of(paths)
    reporter.step("programs", "verifying checksums")
    found = dict(
        zip(
            (program.name for program in wanted),
            await asyncio.gather(*(find(places, program) for program in wanted)),
            strict=True,
        )
    )
    downloader = Downloader(config)
    stored: dict[str, Stored] = {}
    for program in wanted:
        # One at a time: Go already uses every core, and two builds would compile shared packages
        # twice.
        here = found[program.name]
        if here is None:
            here = await _bring(places, program, config, downloader, reporter)
            reporter.done(program.name, f"{program.version} ({here.path})")
        stored[program.name] = here
    return stored


async def find(places: Places, program: Program) -> Stored | None:
    """The program where it is at hand already; None where it is not."""
    for root in (places.cache, places.site):
        stored = await asyncio.to_thread(store.load, root, program)
        if stored is not None:
            return stored
    return await _find_on_path(program)


async def _find_on_path(program: Program) -> Stored | None:
    path = shutil.which(program.name)
    if path is None or not program.version_argv:
        return None
    with contextlib.suppress(HpkError, OSError):
        done = await subproc.run([path, *program.version_argv], timeout_s=10)
        if done.exit_code == 0 and program.prints_version(done.stdout + done.stderr):
            digest = await asyncio.to_thread(store.sha256_of, Path(path))
            return Stored(program=program, path=Path(path), sha256=digest, origin="path")
    return None


async def _bring(
    places: Places,
    program: Program,
    config: BinariesConfig,
    downloader: Downloader,
    reporter: Reporter,
) -> Stored:
    private_directory(places.cache.parent)
    work = store.workplace(places.cache, program)

    def waiting() -> None:
        reporter.step(program.name, "waiting for another process that brings it")

    try:
        async with wait_for_lock(work.parent / ".lock", waiting):
            stored = await asyncio.to_thread(store.load, places.cache, program)
            if stored is not None:
                return stored
            return await _from_sources(places, program, config, downloader, reporter, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


async def _from_sources(
    places: Places,
    program: Program,
    config: BinariesConfig,
    downloader: Downloader,
    reporter: Reporter,
    work: Path,
) -> Stored:
    refusals = []
    for source in config.sources:
        if source == "download" and not program.url:
            refusals.append("download: upstream releases no such program")
            continue
        try:
            if source == "download":
                path = await _download(program, downloader, reporter, work)
                origin = downloader.url(program.fill(program.url))
            else:
                path, origin = await _build(program, config, reporter, work), "build"
        except HpkError as error:
            refusals.append(f"{source}: {error}")
            reporter.step(program.name, refusals[-1])
        else:
            return await asyncio.to_thread(store.put, places.cache, program, path, origin=origin)
    raise PermanentError(
        f"{program.name} {program.version} cannot be had: " + "; ".join(refusals),
        remedy="reach the network (see [binaries] in config.toml: mirror, proxy), "
        "then run `hpk setup binaries`",
    )


async def _download(
    program: Program, downloader: Downloader, reporter: Reporter, work: Path
) -> Path:
    reporter.step(program.name, "downloading")
    loop = asyncio.get_running_loop()

    def progress(done: int, total: int) -> None:
        of = f" of {total >> 20}" if total else ""
        text = f"downloading: {done >> 20}{of} MiB"
        loop.call_soon_threadsafe(reporter.step, program.name, text)

    return await asyncio.to_thread(downloader.fetch, program, work, progress)


async def _build(program: Program, config: BinariesConfig, reporter: Reporter, work: Path) -> Path:
    go = await build.check_go()
    log = work / "build.log"

    async def watch() -> None:
        while True:
            so_far = await asyncio.to_thread(build.build_progress, log)
            reporter.step(program.name, f"building with {go.split()[2]}: {so_far}")
            await asyncio.sleep(1)

    watcher = asyncio.create_task(watch())
    try:
        return await build.build(program, work, proxy=config.proxy, log=log)
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
