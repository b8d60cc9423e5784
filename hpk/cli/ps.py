"""``hpk ps``: Pods beside their Slurm jobs."""

from __future__ import annotations

import asyncio
import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from hpk.report.ps import PsRow, read_rows
from hpk.report.times import moment, span
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

_TITLES = (
    *("POD", "STATUS", "JOB", "STATE", "REASON", "START", "NODES"),
    *("ELAPSED", "LEFT", "CPU-HOURS", "GPU-HOURS"),
)


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def ps(all_namespaces: bool, namespace: str, output: str) -> None:
    """List Pods with their jobs: state, reason, expected start, nodes, time and cost so far."""
    wanted = None if all_namespaces else namespace
    found = asyncio.run(read_rows(HpkPaths.from_environment(), CliBackend(), wanted))
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(row) for row in found], indent=1))
        return
    if not found:
        click.echo("no Pods" if all_namespaces else f"no Pods in namespace {namespace}", err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in [*(["NAMESPACE"] if all_namespaces else []), *_TITLES]:
        table.add_column(title, no_wrap=True)
    for row in found:
        table.add_row(*([row.namespace] if all_namespaces else []), *_cells(row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)


def _cells(row: PsRow) -> list[str]:
    return [
        row.pod,
        row.status,
        "" if row.job_id is None else str(row.job_id),
        row.state,
        row.reason,
        "" if row.start_time_s is None else moment(row.start_time_s),
        row.nodes,
        span(row.elapsed_s),
        span(row.time_left_s),
        "" if row.cpu_hours is None else f"{row.cpu_hours:.2f}",
        "" if not row.gpu_hours else f"{row.gpu_hours:.2f}",
    ]
