"""Fuzzes the two frame layers: `python -m tests.fuzz --minutes 10 --seed 1`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time

from tests.fuzz.world import LAYERS, try_one


async def fuzz(seconds: float, first: int) -> int:
    """Sessions of all layers in turn, until time is up; how many."""
    end, seed = time.monotonic() + seconds, first
    while time.monotonic() < end:
        for layer in LAYERS:
            try:
                async with asyncio.timeout(60):
                    await try_one(layer, seed)
            except BaseException:
                print(f"{layer}, seed {seed}: python -m tests.fuzz --one {seed}", file=sys.stderr)
                raise
        seed += 1
    return (seed - first) * len(LAYERS)


async def one(seed: int) -> None:
    """The sessions of one seed."""
    for layer in LAYERS:
        await try_one(layer, seed)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the first session")
    parser.add_argument("--one", type=int, help="only the sessions of this seed")
    arguments = parser.parse_args()
    if arguments.one is not None:
        asyncio.run(one(arguments.one))
        return
    count = asyncio.run(fuzz(arguments.minutes * 60, arguments.seed))
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count} sessions, none that broke a rule; {memory_mib} MiB at most")


if __name__ == "__main__":
    main()
