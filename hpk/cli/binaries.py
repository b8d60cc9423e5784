"""``hpk binaries``: where upstream's programs are, without bringing any."""

from __future__ import annotations

import asyncio
import json
import sys

import click

from bootstrap.binaries import Places, find
from bootstrap.components import PROGRAMS
from bootstrap.store import Stored
from hpk.statefs import HpkPaths


async def _find_all() -> dict[str, Stored | None]:
    places = Places.of(HpkPaths.from_environment())
    found = await asyncio.gather(*(find(places, program) for program in PROGRAMS.values()))
    return dict(zip(PROGRAMS, found, strict=True))


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def binaries(output: str) -> None:
    """List upstream's programs and their checksums; exits 1 where one is missing."""
    found = asyncio.run(_find_all())
    if output == "json":
        data = {
            name: None
            if stored is None
            else {
                "version": stored.program.version,
                "path": str(stored.path),
                "sha256": stored.sha256,
                "origin": stored.origin,
            }
            for name, stored in found.items()
        }
        click.echo(json.dumps(data, indent=1))
    else:
        for name, stored in found.items():
            where = f"{stored.sha256[:12]}  {stored.path}" if stored else "missing"
            click.echo(f"{name:<24} {PROGRAMS[name].version:<9} {where}")
    if None in found.values():
        click.echo("hpk: programs are missing\n  try: hpk setup binaries", err=True)
        sys.exit(1)
