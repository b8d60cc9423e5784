"""``hpk config``: the settings in force."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from hpk.config.load import layers, load
from hpk.config.show import settings
from hpk.statefs import HpkPaths


@click.group()
def config() -> None:
    """What the site's and your own config.toml say."""


@config.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def show(output: str) -> None:
    """Every setting, its value, and the file it comes from."""
    paths = HpkPaths.from_environment()
    loaded = load(paths)
    found = settings(loaded)
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("SETTING", "VALUE", "FROM"):
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(one.key, json.dumps(one.value, ensure_ascii=False), one.origin)
    console = Console(markup=False, highlight=False)
    console.print(table)
    for layer in layers(paths):
        state = "read" if layer.path in loaded.files else "not there"
        console.print(f"{layer.path}: {state}", soft_wrap=True)
