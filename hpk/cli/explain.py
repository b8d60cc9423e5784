"""``hpk explain``: what would be submitted for a manifest. Exits 1 where a Pod would be refused."""

from __future__ import annotations

import dataclasses
import json
import sys

import click

from hpk.model.errors import PermanentError
from hpk.report.explain_text import explanation_text
from hpk.report.explaining import explain_files
from hpk.statefs import HpkPaths


@click.command()
@click.option("-f", "--filename", "files", multiple=True, required=True, help="YAML; - is stdin.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-p", "--parameter", "parameters", multiple=True, help="An Argo NAME=VALUE.")
@click.option("--offline", is_flag=True, help="Do not ask Slurm for its partitions.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def explain(
    files: tuple[str, ...],
    namespace: str,
    parameters: tuple[str, ...],
    offline: bool,
    output: str,
) -> None:
    """Show the batch script and containers of each Pod in a manifest; needs no control plane.

    Takes Pods, Jobs, CronJobs, Deployments, StatefulSets, DaemonSets, ReplicaSets, and the
    templates of Argo Workflows. Nothing is pulled or submitted.
    """
    found = explain_files(
        HpkPaths.from_environment(),
        files,
        namespace=namespace,
        parameters=dict(_pair(text) for text in parameters),
        ask_slurm=not offline,
    )
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    else:
        click.echo("\n".join(explanation_text(one) for one in found), nl=False)
    sys.exit(1 if any(one.refusal is not None for one in found) else 0)


def _pair(text: str) -> tuple[str, str]:
    name, has_value, value = text.partition("=")
    if not has_value:
        raise PermanentError(f"{text!r} is not NAME=VALUE", remedy="write -p cpus=4")
    return name, value
