"""``hpk script``: what was really submitted for a Pod."""

from __future__ import annotations

import dataclasses
import json
import time

import click

from hpk.report.script import read_script
from hpk.statefs import HpkPaths


@click.command()
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def script(pod: str, namespace: str, output: str) -> None:
    """Print the batch script that was submitted for POD; its job's id goes to standard error."""
    found = read_script(HpkPaths.from_environment(), namespace, pod)
    if output == "json":
        click.echo(json.dumps(dataclasses.asdict(found), indent=1))
        return
    job = "no job" if found.job_id is None else f"Slurm job {found.job_id}"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found.submitted_at_s))
    refused = ", refused" if found.refused else ""
    click.echo(f"# Pod {found.pod}: {job}{refused}, {when}, {found.path}", err=True)
    click.echo(found.script, nl=False)
