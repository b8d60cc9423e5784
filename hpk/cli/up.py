"""``hpk up``: start the control plane, here in the foreground or in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.resources
import logging
import sys

import click
from rich.console import Console

from bootstrap.binaries import ensure_all
from bootstrap.progress import StepProgress
from bootstrap.supervise import supervise
from bootstrap.up import (
    already_up,
    scrub_job_environment,
    start,
    surrounding_job,
    wait_for_use,
)
from bootstrap.usable import read_endpoint
from hpk.config.load import load_config
from hpk.statefs import HpkPaths


@click.command()
@click.option("--foreground", is_flag=True, help="Stay in this process until told to stop.")
@click.option("--no-wait", is_flag=True, help="Do not wait until it can be used.")
@click.option(
    "--print-batch-script",
    is_flag=True,
    help="Print hpk-start.sh, which runs the control plane in a Slurm job.",
)
def up(foreground: bool, no_wait: bool, print_batch_script: bool) -> None:
    """Start the control plane, unless it is up already."""
    if print_batch_script:
        script = importlib.resources.files("bootstrap") / "hpk-start.sh"
        click.echo(script.read_text(), nl=False)
        return
    paths = HpkPaths.from_environment()
    if foreground:
        sys.exit(_foreground(paths))
    try:
        asyncio.run(_background(paths, wait=not no_wait))
    except KeyboardInterrupt:
        click.echo(
            "What has been started goes on in the background: hpk status, hpk down", err=True
        )
        raise


def _foreground(paths: HpkPaths) -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    job_id = surrounding_job()
    scrub_job_environment()
    with StepProgress(Console(stderr=True)) as progress:
        asyncio.run(ensure_all(paths, load_config(paths).binaries, progress))
    return asyncio.run(supervise(paths, job_id))


async def _background(paths: HpkPaths, *, wait: bool) -> None:
    console = Console(stderr=True)
    with StepProgress(console) as progress:
        holder = await already_up(paths)
        endpoint = read_endpoint(paths)
        if holder is not None:
            click.echo(f"The control plane is up already, on {holder.where}; nothing to do.")
        else:
            endpoint = await start(paths, load_config(paths), progress)
        if wait and endpoint is not None:
            await wait_for_use(paths, progress)
    if not wait:
        click.echo("Next: hpk status --wait")
        return
    click.echo(f"Next: kubectl --kubeconfig {paths.kubeconfig} get nodes")
