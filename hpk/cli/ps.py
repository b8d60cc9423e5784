"""``hpk ps``: Pods beside their Slurm jobs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
from typing import Protocol

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpk.model.errors import HpkError
from hpk.report.ps import PsRow, read_rows
from hpk.report.ps_text import TITLES, cells
from hpk.report.ps_watch import watch_rows
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths

_WIDE = 1000


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("-w", "--watch", is_flag=True, help="Show changes as they come, until interrupted.")
def ps(all_namespaces: bool, namespace: str, output: str, watch: bool) -> None:
    """List Pods with their jobs: state, reason, expected start, nodes, time and cost so far."""
    wanted = None if all_namespaces else namespace
    paths = HpkPaths.from_environment()
    if watch:
        screen = Console(markup=False, highlight=False)
        is_drawn = output == "text" and screen.is_terminal
        show = _Drawing(screen, wanted) if is_drawn else _Changes(wanted, as_json=output == "json")
        with contextlib.suppress(KeyboardInterrupt), show:
            asyncio.run(_watch(paths, wanted, show))
        return
    found = asyncio.run(read_rows(paths, CliBackend(), wanted))
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(row) for row in found], indent=1))
        return
    if not found:
        click.echo(_none(wanted), err=True)
        return
    # As wide as it is, on any terminal, as kubectl has it: a name that is cut is none.
    Console(markup=False, highlight=False, width=_WIDE).print(_table(found, wanted))


class _Show(Protocol):
    """Where rows are shown, again and again."""

    def rows(self, rows: tuple[PsRow, ...]) -> None:
        """As they are now."""

    def problem(self, error: HpkError) -> None:
        """They are not known."""


async def _watch(paths: HpkPaths, wanted: str | None, show: _Show) -> None:
    async for news in watch_rows(paths, CliBackend(), wanted):
        if isinstance(news, HpkError):
            show.problem(news)
        else:
            show.rows(news)


class _Drawing(Live):
    """The table on a terminal, drawn anew; in the end the last one stays."""

    def __init__(self, console: Console, wanted: str | None) -> None:
        super().__init__(console=console, auto_refresh=False, screen=False)
        self._wanted = wanted

    def rows(self, rows: tuple[PsRow, ...]) -> None:
        """See _Show."""
        wide = Console(markup=False, highlight=False, width=_WIDE, file=io.StringIO())
        with wide.capture() as drawn:
            wide.print(_table(rows, self._wanted) if rows else _none(self._wanted))
        # What does not fit is cut at the right, not in each column.
        lines = Text(drawn.get().rstrip("\n"), no_wrap=True, overflow="crop")
        lines.stylize("bold", 0, lines.plain.find("\n") if rows else 0)
        self.update(lines, refresh=True)

    def problem(self, error: HpkError) -> None:
        """See _Show."""
        self.update(Text(str(error)), refresh=True)


class _Changes:
    """Rows that are new or have changed, one after the other, for a file or a program."""

    def __init__(self, wanted: str | None, *, as_json: bool) -> None:
        self._wanted = wanted
        self._as_json = as_json
        self._shown: dict[tuple[str, str], PsRow] = {}

    def __enter__(self) -> None:
        if not self._as_json:
            click.echo("\t".join(_titles(self._wanted)))

    def __exit__(self, *_: object) -> None:
        pass

    def rows(self, rows: tuple[PsRow, ...]) -> None:
        """See _Show."""
        found = {(row.namespace, row.pod): _without_time(row) for row in rows}
        for row in rows:
            key = (row.namespace, row.pod)
            if self._shown.get(key) != found[key]:
                click.echo(
                    json.dumps(dataclasses.asdict(row))
                    if self._as_json
                    else "\t".join(_cells(row, self._wanted))
                )
        self._shown = found

    def problem(self, error: HpkError) -> None:
        """See _Show."""
        click.echo(f"hpk ps: {error}", err=True)


def _without_time(row: PsRow) -> PsRow:
    return dataclasses.replace(
        row, elapsed_s=None, time_left_s=None, cpu_hours=None, gpu_hours=None
    )


def _none(wanted: str | None) -> str:
    return "no Pods" if wanted is None else f"no Pods in namespace {wanted}"


def _titles(wanted: str | None) -> list[str]:
    return [*(["NAMESPACE"] if wanted is None else []), *TITLES]


def _table(rows: tuple[PsRow, ...], wanted: str | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in _titles(wanted):
        table.add_column(title, no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, wanted))
    return table


def _cells(row: PsRow, wanted: str | None) -> list[str]:
    return [*([row.namespace] if wanted is None else []), *cells(row)]
