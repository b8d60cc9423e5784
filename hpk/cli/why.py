"""``hpk why``: why a Pod is not running, or how it ended."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import click

from hpk.report.asking import collect
from hpk.report.why import explain_why
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths


@click.command()
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def why(pod: str, namespace: str, output: str) -> None:
    """Say why POD is not running or how it ended, and what to try next."""
    paths = HpkPaths.from_environment()
    found = explain_why(asyncio.run(collect(paths, CliBackend(), namespace, pod)))
    if output == "json":
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
        return
    click.echo(found.text)
    if found.next:
        click.echo(f"Next: {found.next}")
