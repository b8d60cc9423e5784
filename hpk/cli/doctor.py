"""``hpk doctor``: whether this site has what HPK needs. Exits 1 where something essential fails."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys

import click
from rich.console import Console

from bootstrap.binaries import Reporter
from bootstrap.progress import StepProgress
from hpk.config.load import load_config
from hpk.report.doctor.evaluate import as_text, evaluate, is_fit
from hpk.report.doctor.facts import Facts, JobEnd, JobFacts
from hpk.report.doctor.job import DoctorJob, Wanted
from hpk.report.doctor.login import collect_login
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    help="Seconds to wait for the job to start.",
)
@click.option("--partition", default="", help="Where the job goes, instead of the configured one.")
@click.option("--no-job", is_flag=True, help="Look at the login node only.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def doctor(timeout_s: float, partition: str, no_job: bool, output: str) -> None:
    """Check this site: from here, and through a small Slurm job from a compute node."""
    wanted = None if no_job else Wanted(timeout_s=timeout_s, partition=partition)
    with StepProgress(Console(stderr=True)) as progress:
        facts = asyncio.run(_interruptible(wanted, progress))
    findings = evaluate(facts)
    fit = is_fit(findings)
    if output == "json":
        report = facts.job.report
        document = {
            "ok": fit,
            "login": facts.login.host,
            "node": report.host if report is not None else None,
            "job_id": facts.job.job_id or None,
            "checks": [dataclasses.asdict(one) for one in findings],
        }
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(as_text(facts, findings))
    sys.exit(0 if fit else 1)


async def _interruptible(wanted: Wanted | None, reporter: Reporter) -> Facts:
    """A lost terminal or a SIGTERM clears up as Ctrl-C does."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        return await _examine(wanted, reporter)
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def _examine(wanted: Wanted | None, reporter: Reporter) -> Facts:
    paths, backend = HpkPaths.from_environment(), CliBackend()
    config = load_config(paths)
    reporter.step("login", "looking at this host")
    login = await collect_login(paths, backend, config)
    reporter.done("login", "looked at")
    if wanted is None:
        job = JobFacts(end=JobEnd.NOT_ASKED, problem="not asked for")
    elif login.slurm.controller:
        job = JobFacts(end=JobEnd.NOT_ASKED, problem="slurmctld does not answer")
    elif login.spaces[0].problem:
        job = JobFacts(end=JobEnd.NOT_ASKED, problem="$HPK_HOME cannot be used")
    else:
        job = await DoctorJob(paths, backend, config, wanted, reporter).examine(login.address)
    return Facts(login=login, job=job)
