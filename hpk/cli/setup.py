"""``hpk setup``: what has to be there before the first start."""

from __future__ import annotations

import asyncio

import click
from rich.console import Console

from bootstrap.binaries import ensure_all
from bootstrap.components import PROGRAMS, SAMPLES
from bootstrap.lab import apptainer, definitions, images
from bootstrap.progress import StepProgress
from hpk.config.load import load_config
from hpk.statefs import HpkPaths


@click.group()
def setup() -> None:
    """Prepare this machine."""


@setup.command("binaries")
@click.option(
    "--source",
    "sources",
    type=click.Choice(["download", "build"]),
    multiple=True,
    help="Where missing programs come from, in this order (default: the configuration's).",
)
@click.argument("names", nargs=-1, type=click.Choice(sorted({**PROGRAMS, **SAMPLES})))
def setup_binaries(sources: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Download or build upstream's programs and verify their checksums.

    Without NAMES those of the control plane.
    """
    paths = HpkPaths.from_environment()
    config = load_config(paths).binaries
    if sources:
        config = config.model_copy(update={"sources": sources})
    with StepProgress(Console(stderr=True)) as progress:
        asyncio.run(ensure_all(paths, config, progress, names or tuple(PROGRAMS)))


@setup.command("apptainer")
def setup_apptainer() -> None:
    """Build Apptainer for the lab."""
    paths = HpkPaths.from_environment()
    with StepProgress(Console(stderr=True)) as progress:
        asyncio.run(apptainer.ensure(paths.cache, progress))


@setup.command("images")
def setup_images() -> None:
    """Make the lab's sample images."""
    paths = HpkPaths.from_environment()
    with StepProgress(Console(stderr=True)) as progress:
        asyncio.run(_make_images(paths, progress))


async def _make_images(paths: HpkPaths, progress: StepProgress) -> None:
    for definition in definitions.load_all():
        await images.ensure(paths.cache, definition, progress)
