"""``hpk status``: components, nodes, Slurm and jobs. Exits 0 ready, 1 not quite, 3 down."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table

from bootstrap.state import Interruption
from bootstrap.status import Health, Status, read_status
from bootstrap.usable import wait_until_usable
from hpk.model.errors import TransientError
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

_PAUSE_S = 0.5


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("--wait", is_flag=True, help="First wait until the control plane can be used.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait no longer than this (default: for ever).",
)
def status(output: str, wait: bool, timeout: float | None) -> None:
    """Show the control plane, its virtual nodes, Slurm and the pods' jobs."""
    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait")
    found = asyncio.run(_status(HpkPaths.from_environment(), wait=wait, timeout_s=timeout))
    if output == "json":
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _print(found)
    sys.exit(found.health.exit_code)


def _say(text: str) -> None:
    click.echo(text, err=True)


async def _status(paths: HpkPaths, *, wait: bool, timeout_s: float | None) -> Status:
    began = time.monotonic()
    while wait:
        left_s = None if timeout_s is None else max(0.0, timeout_s - time.monotonic() + began)
        try:
            await wait_until_usable(
                paths, lambda text: click.echo(text, err=True), timeout_s=left_s
            )
        except TransientError as error:
            click.echo(str(error), err=True)
            break
        found = await read_status(paths, CliBackend())
        if found.health is Health.READY:
            return found
        await asyncio.sleep(_PAUSE_S)
    return await read_status(paths, CliBackend())


def _print(found: Status) -> None:
    console = Console()
    where = f" on {found.holder.where}" if found.holder and found.health is not Health.DOWN else ""
    console.print(f"Control plane: {found.health}{where}", markup=False, highlight=False)
    if found.endpoint is not None:
        server = f"https://{found.endpoint.address}:{found.endpoint.api_port}"
        console.print(f"API server:    {server}", markup=False, highlight=False)
    version = found.slurm_version or "does not answer"
    console.print(f"Slurm:         {version}", markup=False, highlight=False)
    if found.components:
        table = _table("component", "version", "state", "pid", "restarts")
        for one in found.components:
            table.add_row(one.name, one.version, one.phase, str(one.pid or ""), str(one.restarts))
        console.print(table)
    if found.nodes:
        table = _table("node", "state")
        for node in found.nodes:
            table.add_row(node.name, "Ready" if node.ready and node.fresh else "NotReady")
        console.print(table)
    if found.jobs:
        table = _table("job", "state", "reason", "pod")
        for job in found.jobs:
            table.add_row(str(job.job_id), job.state, job.reason, job.pod)
        console.print(table)
    for missing in found.waiting_for if found.health is not Health.DOWN else ():
        console.print(f"! waiting for {missing}", markup=False, highlight=False, soft_wrap=True)
    for problem in found.problems:
        console.print(f"! {problem}", markup=False, highlight=False, soft_wrap=True)
    for interruption in found.interruptions:
        console.print(_told(interruption), markup=False, highlight=False, soft_wrap=True)
    if found.health is Health.DOWN:
        console.print("Next: hpk up", markup=False, highlight=False)


def _told(interruption: Interruption) -> str:
    """That the control plane was away, why, and what that meant."""
    began = datetime.fromtimestamp(interruption.began_at_s).astimezone()
    ended = "it is starting again"
    if interruption.ended_at_s:
        took_s = interruption.ended_at_s - interruption.began_at_s
        ended = f"after {took_s:.0f} s it had started again by itself"
    return (
        f"! the control plane stopped itself at {began:%Y-%m-%d %H:%M:%S}, for"
        f" {interruption.why}; {ended}. Pods' jobs went on"
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper(), no_wrap=True)
    return table
