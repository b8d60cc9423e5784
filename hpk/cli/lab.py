"""``hpk lab``: a private real Slurm cluster on this machine, for the demo and the tests."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys

import click
from rich.console import Console

from bootstrap.lab import control, software
from bootstrap.lab.hosts import Machine
from bootstrap.lab.layout import DEFAULT_NAME, LOGIN, REGISTRY, SOFTWARE, Lab
from bootstrap.lab.registry import ensure_images
from bootstrap.progress import StepProgress
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths


@click.group()
@click.option(
    "--name",
    default=DEFAULT_NAME,
    show_default=True,
    help="Which lab; several may stand beside each other.",
)
@click.pass_context
def lab(context: click.Context, name: str) -> None:
    """A private real Slurm cluster on this machine (needs root)."""
    context.obj = Lab(name=name).name


@lab.command()
@click.option("--nodes", type=int, help="Compute nodes, 4 by default.")
@click.pass_obj
def up(name: str, nodes: int | None) -> None:
    """Bring the lab up, or repair what of it is broken."""
    with StepProgress(Console(stderr=True)) as progress:
        changed = asyncio.run(control.up(name, nodes, progress))
    click.echo(
        "the lab is up: `hpk lab shell` is a shell on its login host"
        if changed
        else "the lab is up already; nothing was changed"
    )


@lab.command()
@click.pass_obj
def down(name: str) -> None:
    """End the lab and remove every trace of it."""
    there = asyncio.run(control.down(name))
    click.echo("the lab is down" if there else "there is no lab; nothing was changed")


@lab.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def status(name: str, output: str) -> None:
    """Hosts and daemons; exit code 1 where something is down."""
    now = asyncio.run(control.status(control.find(name)))
    if output == "json":
        click.echo(json.dumps(dataclasses.asdict(now)))
    elif not now.up:
        click.echo("the lab is down")
    else:
        for host in now.hosts:
            click.echo(
                f"{host.name:<8}{host.address:<14}{host.state:<12}{host.processes} processes"
            )
        for daemon, running in now.daemons.items():
            if not running:
                click.echo(f"not running: {daemon}")
    if not now.up or not all(now.daemons.values()):
        sys.exit(1)


class _CommandAfterDashes(click.Command):
    """Click forgets where ``--`` stood; here the words after it are a command, never HOST."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        ctx.meta["command"] = args[cut + 1 :]
        return super().parse_args(ctx, args[:cut])


@lab.command(cls=_CommandAfterDashes, options_metavar="[HOST] [--user USER] [-- CMD…]")
@click.argument("host", default=LOGIN, metavar="")
@click.option("--user", default="alice", show_default=True)
@click.pass_context
def shell(context: click.Context, host: str, user: str) -> None:
    """A shell, or CMD, on HOST (login by default); exits with its exit code.

    CMD reaches the host word by word as it is here.
    """
    machine = control.find(context.obj)
    argv = context.meta["command"] or ["bash", "--login"]
    environment = {"TERM": os.environ.get("TERM", "dumb")} if sys.stdin.isatty() else {}
    whole = machine.argv(
        machine.lab.host(host).name, argv, user=machine.lab.user(user), environment=environment
    )
    sys.stdout.flush()
    os.execvp(whole[0], whole)  # noqa: S606 - becomes the program: terminal and exit code are its own


@lab.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def registry(name: str, output: str) -> None:
    """Show the registry's address and images; make and push those that are missing."""
    machine, cache = _running(name), HpkPaths.from_environment().cache
    with StepProgress(Console(stderr=True)) as progress:
        images = asyncio.run(ensure_images(machine, cache, progress))
    if output == "json":
        listed = [dataclasses.asdict(image) for image in images]
        click.echo(json.dumps({"address": REGISTRY, "images": listed}))
        return
    click.echo(f"https://{REGISTRY} (from every host of the lab)")
    for image in images:
        click.echo(f"{image.reference:<53} {image.digest}")


@lab.command()
@click.pass_obj
def install(name: str) -> None:
    """Install this checkout anew into the running lab's software directory."""
    machine = _running(name)
    asyncio.run(software.install(machine.lab))
    click.echo(f"installed at {SOFTWARE}/hpk; what runs already keeps what it was started with")


def _running(name: str) -> Machine:
    machine = control.find(name)
    if machine.init_pid(LOGIN) is None:
        raise PermanentError("the lab is down", remedy="hpk lab up")
    return machine


if __name__ == "__main__":
    lab()
