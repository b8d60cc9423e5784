"""``hpk images``: what the cache of converted images holds, and filling it before a Pod asks."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from hpk.images.manager import ImageManager
from hpk.images.pruning import prune as prune_images
from hpk.images.store import ImageStore
from hpk.model.plan import ImagePlan
from hpk.statefs import HpkPaths


@click.group()
def images() -> None:
    """Container images, converted for the compute nodes."""


@images.command(name="list")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def list_images(output: str) -> None:
    """Images in the cache, and their sizes."""
    paths = HpkPaths.from_environment()
    entries = ImageStore(paths).listing()
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("DIGEST", "SIZE", "REFERENCES"):
        table.add_column(title)
    for entry in entries:
        # A name says the image already; its digest stands in the first column.
        names = [name for name in entry.references if "@" not in name] or list(entry.references)
        table.add_row(entry.manifest_digest[:19], decimal(entry.size_bytes), "\n".join(names))
    console = Console()
    console.print(table)
    total = decimal(sum(entry.size_bytes for entry in entries))
    console.print(f"{total} in {len(entries)} images under {paths.images}", highlight=False)


@images.command()
@click.option(
    "--unused-days",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Remove what no Pod has used for so long.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def prune(unused_days: float, dry_run: bool) -> None:
    """Remove converted images that no Pod has used for long; they are made again when one asks."""
    removed = prune_images(HpkPaths.from_environment(), unused_days=unused_days, dry_run=dry_run)
    for entry in removed:
        names = [name for name in entry.references if "@" not in name] or list(entry.references)
        click.echo(f"{entry.manifest_digest[:19]}  {' '.join(names)}")
    total = decimal(sum(entry.size_bytes for entry in removed))
    verb = "to be removed" if dry_run else "removed"
    click.echo(f"{total} in {len(removed)} images {verb}")


@images.command()
@click.argument("reference")
def pull(reference: str) -> None:
    """Fetch and convert REFERENCE now, so that the first Pod need not wait for it."""
    console = Console(stderr=True)
    with console.status(f"pulling {reference}"):
        plan = asyncio.run(_pull(reference))
    click.echo(plan.image_id)
    console.print(plan.path, highlight=False, soft_wrap=True)


async def _pull(reference: str) -> ImagePlan:
    manager = ImageManager(HpkPaths.from_environment())
    try:
        return await manager.ensure(reference, pull_policy="Always")
    finally:
        await manager.close()
