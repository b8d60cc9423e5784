"""``hpk``: the command group. Each command lives in its own module, imported when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click

from hpk.cli import errors
from hpk.cli.home import require_answer
from hpk.model.errors import PermanentError
from hpk.statefs import HpkPaths

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
    "top": "hpk.cli.top",
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
        _require_home()
        require_answer(HpkPaths.from_environment().home, lambda text: click.echo(text, err=True))
        command = getattr(importlib.import_module(_COMMANDS[name]), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{_COMMANDS[name]}.{name} is not a command")
        return command


def _require_home() -> None:
    """Libraries look for it when they are imported, and find their own words where there is none.

    :raises PermanentError: neither HOME nor the user database tells it.
    """
    try:
        Path.home()
    except RuntimeError as error:
        raise PermanentError(
            f"HOME is not set, and uid {os.getuid()} has no home in the user database",
            remedy="export HOME=… (a directory of yours)",
        ) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hpk")
def cli() -> None:
    """Kubernetes on Slurm, as an ordinary user."""


def main() -> None:
    """Run the command line; an error is one line and its remedy, not a traceback."""
    try:
        try:
            cli.main(prog_name="hpk", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SystemExit:
        raise
    except BrokenPipeError:
        # Whoever read our output has seen enough of it.
        errors.close_output()
        sys.exit(1)
    except BaseException as error:
        code = errors.report(error)
        if isinstance(error, OSError):
            errors.close_output()
        sys.exit(code)


if __name__ == "__main__":
    main()
