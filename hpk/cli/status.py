"""``hpk status``: components, nodes, Slurm and jobs. Exits 0 ready, 1 not quite, 3 down."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table

from bootstrap.state import Interruption
from bootstrap.status import Health, Status, read_status
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths


@click.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def status(output: str) -> None:
    """Show the control plane, its virtual nodes, Slurm and the pods' jobs."""
    found = asyncio.run(read_status(HpkPaths.from_environment(), CliBackend()))
    if output == "json":
        click.echo(json.dumps(found.as_json(), indent=1))
    else:
        _print(found)
    sys.exit(found.health.exit_code)


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
