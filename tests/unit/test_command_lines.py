"""Every command line of hpk that a document, a script or a message names can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from hpk.cli.main import cli

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"(?<![\w/.$-])hpk((?: +[\w=./:-]+)+)")
TEXTS = ("*.md", "docs/*.md", "scripts/*", "Makefile")
SOURCES = ("hpk", "kubelet", "bootstrap")


def texts() -> Iterator[Path]:
    for pattern in TEXTS:
        yield from (path for path in ROOT.glob(pattern) if path.is_file())
    for room in SOURCES:
        for pattern in ("*.py", "*.sh", "*.j2"):
            yield from (ROOT / room).rglob(pattern)


def unknown_options(words: list[str]) -> list[str]:
    """The long options that the command has not; none where the words begin no command."""
    command: click.Command = cli
    missing = []
    for word in words:
        context = click.Context(command)
        if word == "--":
            break
        if word.startswith("--"):
            known = {name for one in command.get_params(context) for name in one.opts}
            known |= {name for one in command.get_params(context) for name in one.secondary_opts}
            if word.partition("=")[0] not in known:
                missing.append(word)
        elif isinstance(command, click.Group):
            command = command.get_command(context, word) or command
    return [] if command is cli else missing


def test_named_options_exist() -> None:
    lines = {found[0]: path for path in texts() for found in LINE.finditer(path.read_text())}
    assert len(lines) > 50
    wrong = {line: path for line, path in lines.items() if unknown_options(line.split()[1:])}
    assert wrong == {}


def test_an_option_that_is_not_there_would_be_seen() -> None:
    assert unknown_options(["up", "--batch-script"]) == ["--batch-script"]
    assert unknown_options(["lab", "--name", "x", "shell", "--", "sinfo", "--me"]) == []
