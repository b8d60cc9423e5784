"""``python -m tests.conformance``: Kubernetes' own conformance tests, in the lab (needs root).

Everything is built on the first run and kept. A run that was interrupted goes on where it was: what
has a result is not run again (``--again failed`` or ``--again all`` does).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bootstrap import build
from bootstrap.binaries import ensure_programs
from bootstrap.lab import control, registry, software
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import LOGIN
from bootstrap.progress import StepProgress
from hpk.config.load import load_config
from hpk.durable import write_atomically
from hpk.statefs import HpkPaths
from tests.conformance import images
from tests.conformance.programs import IN_IMAGES, SOURCES, SUITE
from tests.conformance.running import USER, Run, list_specs, place_suite
from tests.conformance.scorecard import DOCUMENT, load_verdicts, needless, render
from tests.conformance.specs import (
    PASSED,
    SKIPPED,
    Choice,
    Result,
    format_results,
    group,
    read_results,
)
from tests.e2e.cluster import Cluster

_TABLE = DOCUMENT.with_suffix(".tsv")


def main(arguments: list[str]) -> int:
    """Build, run, write the scorecard. :returns: 0 where no chosen spec failed."""
    parsed = _parse(arguments)
    paths = HpkPaths.from_environment()
    out = parsed.out or paths.cache / "conformance" / "results"
    with StepProgress(Console(stderr=True)) as progress:
        suite = asyncio.run(_build(paths, progress, [SUITE.name]))[SUITE.name]
        out.mkdir(parents=True, exist_ok=True)
        choice = Choice(
            focus=tuple(parsed.focus), skip=tuple(parsed.skip), conformance_only=not parsed.any
        )
        shard, shards = (int(word) for word in parsed.shard.split("/"))
        listed = list_specs(suite, out)
        specs = [spec for spec in listed if spec in choice][shard::shards]
    if parsed.write:
        _write(read_results(_TABLE) | read_results(out / "results.tsv"), listed)
        return 0
    if parsed.list:
        print("\n".join(specs))
        return 0
    with _cluster(parsed.lab, paths) as cluster:
        place_suite(cluster.machine, suite)
        run = Run(machine=cluster.machine, out=out, at_once=parsed.at_once, batch=parsed.batch)
        run.load()
        todo = [spec for spec in specs if _is_due(run.results.get(spec), parsed.again)]
        todo.sort(key=run.results.__contains__)  # what has no result yet goes first
        print(f"{len(specs)} specs chosen, {len(todo)} to run; results: {run.table}", flush=True)
        run.run(todo)
    if parsed.document:
        _write(read_results(_TABLE) | run.results, listed)
    bad = [
        s for s in specs if s not in run.results or run.results[s].state not in (PASSED, SKIPPED)
    ]
    print(f"{len(specs) - len(bad)} of {len(specs)} passed or skipped themselves")
    return 1 if bad else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--focus", nargs="+", default=["[Conformance]"], help="specs with these texts"
    )
    parser.add_argument("--skip", nargs="+", default=[], help="no specs with these texts")
    parser.add_argument("--any", action="store_true", help="also specs outside conformance")
    parser.add_argument("--again", choices=("failed", "all"), help="run what has a result again")
    parser.add_argument("--shard", default="0/1", help="K/N: of each N specs the Kth")
    parser.add_argument("--at-once", type=int, default=5, help="processes of the suite")
    parser.add_argument("--batch", type=int, default=4, help="specs for each process")
    parser.add_argument("--lab", default=os.environ.get("HPK_TEST_LAB", "hpk-lab-conformance"))
    parser.add_argument("--out", type=Path, help="directory of results and output")
    parser.add_argument("--list", action="store_true", help="list the chosen specs, run nothing")
    parser.add_argument("--document", action="store_true", help="write docs/conformance.md")
    parser.add_argument("--write", action="store_true", help="write it from results, run nothing")
    return parser.parse_args(arguments)


def _is_due(result: Result | None, again: str | None) -> bool:
    if result is None or again == "all":
        return True
    return again == "failed" and result.state not in (PASSED, SKIPPED)


async def _build(paths: HpkPaths, progress: StepProgress, names: list[str]) -> dict[str, Path]:
    known = {SUITE.name: SUITE, **IN_IMAGES}
    wanted = [known[name] for name in names]
    stored = await ensure_programs(paths, load_config(paths).binaries, progress, wanted)
    return {name: found.path for name, found in stored.items()}


@contextmanager
def _cluster(lab: str, paths: HpkPaths) -> Iterator[Cluster]:
    """The control plane of the lab's user; a lab that was up already stays up."""
    was_up = control.find(lab).init_pid(LOGIN) is not None
    try:
        with StepProgress(Console(stderr=True)) as progress:
            asyncio.run(control.up(lab, None, progress))
            machine = control.find(lab)
            if was_up:
                asyncio.run(software.install(machine.lab))
            asyncio.run(_push_images(machine, paths, progress))
        cluster = Cluster(machine=machine, user=USER)
        # One that runs already runs the code it was started with.
        cluster.run(["hpk", "down", "--keep-jobs"], check=False, timeout_s=300)
        cluster.run(["hpk", "up"], timeout_s=600)
        yield cluster
    finally:
        if not was_up:
            asyncio.run(control.down(lab))


async def _push_images(machine: Machine, paths: HpkPaths, progress: StepProgress) -> None:
    programs = await _build(paths, progress, list(IN_IMAGES))
    sources = await build.module_directory("k8s.io/kubernetes", SOURCES, "")
    layouts = await images.ensure(paths.cache, programs, sources, progress)
    for name, layout in layouts.items():
        await registry.ensure_pushed(machine, paths.cache, layout, name, progress)


def _write(results: dict[str, Result], listed: Iterable[str]) -> None:
    verdicts = load_verdicts()
    groups = {group(spec) for spec in results}
    not_run = [
        spec
        for spec in listed
        if "[Conformance]" in spec and group(spec) in groups and spec not in results
    ]
    for spec in needless(results, verdicts):
        print(f"passes, though verdicts.toml says it cannot: {spec}")
    write_atomically(_TABLE, format_results(results), mode=0o644)
    write_atomically(DOCUMENT, render(results, verdicts, not_run), mode=0o644)
    print(f"written: {DOCUMENT}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
