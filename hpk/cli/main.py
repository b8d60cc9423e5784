"""``hpk``: the command group. Each command lives in its own module, imported when it is used."""

from __future__ import annotations

import importlib
import sys

import click

from hpk.model.errors import HpkError

_COMMANDS = {
    "binaries": "hpk.cli.binaries",
    "config": "hpk.cli.config",
    "doctor": "hpk.cli.doctor",
    "down": "hpk.cli.down",
    "explain": "hpk.cli.explain",
    "images": "hpk.cli.images",
    "kubeconfig": "hpk.cli.kubeconfig",
    "lab": "hpk.cli.lab",
    "ps": "hpk.cli.ps",
    "script": "hpk.cli.script",
    "setup": "hpk.cli.setup",
    "status": "hpk.cli.status",
    "up": "hpk.cli.up",
    "why": "hpk.cli.why",
}
"""Command → module that defines it under that name. Literal, so that starting stays quick."""


class _LazyGroup(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(_COMMANDS[name]), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{_COMMANDS[name]}.{name} is not a command")
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpk")
def cli() -> None:
    """Kubernetes on Slurm, as an ordinary user."""


def main() -> None:
    """Run the command line; an error of ours is one line and its remedy, not a traceback."""
    try:
        cli.main(prog_name="hpk", standalone_mode=False)
    except HpkError as error:
        click.echo(f"hpk: {error.message}", err=True)
        if error.remedy:
            click.echo(f"  try: {error.remedy}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"hpk: {error}", err=True)
        click.echo("  try: hpk doctor, which looks at directories, quotas and limits", err=True)
        sys.exit(1)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hpk: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
