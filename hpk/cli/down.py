"""``hpk down``: stop the control plane, and let the user choose what becomes of the jobs."""

from __future__ import annotations

import asyncio
import sys

import click
from rich.console import Console

from bootstrap import jobs, lock
from bootstrap.down import clean_up, stop
from bootstrap.jobs import OpenJob
from bootstrap.progress import StepProgress
from hpk.config.load import load_config
from hpk.model.errors import TransientError
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths


@click.command()
@click.option(
    "--keep-jobs/--cancel-jobs",
    default=None,
    help="Leave the pods' Slurm jobs alone, or cancel them (default: ask; with no terminal, keep).",
)
def down(keep_jobs: bool | None) -> None:
    """Stop the control plane; its pods' Slurm jobs go on unless they are cancelled."""
    asyncio.run(_down(HpkPaths.from_environment(), keep_jobs))


async def _down(paths: HpkPaths, keep: bool | None) -> None:
    holder = lock.read_holder(paths)
    alive = holder is not None and await lock.is_alive(paths, holder, waiting=_say_waiting)
    holder = lock.read_holder(paths)  # it may have stopped in good order while we watched
    backend = CliBackend()
    open_now = await jobs.open_jobs(paths, backend)
    if open_now:
        keep = _choose(paths, open_now, keep)
    with StepProgress(Console(stderr=True)) as progress:
        if holder is not None and alive:
            progress.step("control-plane", f"stopping on {holder.where}")
            await stop(paths, holder, lambda text: progress.step("control-plane", text))
            progress.done("control-plane", "stopped")
        elif holder is not None and not holder.released:
            ended = await clean_up(paths, holder)
            found = f", ended {', '.join(ended)}" if ended else ""
            progress.done("control-plane", f"had died on {holder.where}{found}")
    if not alive:
        click.echo("The control plane is not up.")
    if keep is False:
        await _cancel(paths, backend)


def _choose(paths: HpkPaths, open_now: tuple[OpenJob, ...], keep: bool | None) -> bool:
    timeout_s = load_config(paths).control_plane.orphan_timeout_s
    rest = (
        f"; a Pod with restartPolicy Always gives\nits node back after {timeout_s} s"
        if timeout_s
        else ""
    )
    queued = [job for job in open_now if job.is_queued]
    click.echo(f"{len(open_now)} Slurm jobs of this control plane's pods, {len(queued)} queued:")
    for job in open_now:
        reason = f" ({job.reason})" if job.reason else ""
        click.echo(f"  {job.job_id}  {job.state}{reason}  {job.pod}")
    click.echo(
        f"Kept, running jobs go on and queued ones start{rest} without\n"
        "a control plane. `hpk up` finds them again."
    )
    if keep is not None:
        return keep
    if not sys.stdin.isatty():
        click.echo("Keeping them (--cancel-jobs cancels).")
        return True
    return click.prompt("keep or cancel?", type=click.Choice(["keep", "cancel"])) == "keep"


async def _cancel(paths: HpkPaths, backend: CliBackend) -> None:
    # Only now: while the kubelet ran it could have submitted more.
    cancelled, errors = await jobs.cancel_all(paths, backend)
    for job in cancelled:
        click.echo(f"cancelled {job.job_id} ({job.pod})")
    if errors:
        raise TransientError(
            "not all jobs were cancelled: " + "; ".join(errors),
            remedy="hpk down --cancel-jobs again",
        )


def _say_waiting(left_s: float) -> None:
    if left_s < lock.STALE_S - 2 * lock.BEAT_S:
        click.echo(f"no heartbeat yet; taken for dead in {left_s:.0f} s", err=True)
